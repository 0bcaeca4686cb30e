/** People in front of browsers: each has a context of their own, as a person has a browser of their own. */

import { mkdir, readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { type Browser, type BrowserContext, type BrowserContextOptions, type Locator, type Page, chromium } from 'playwright-core'

export const SCREENSHOTS = fileURLToPath(new URL('screenshots/', import.meta.url))
export const AXE = createRequire(import.meta.url).resolve('axe-core/axe.min.js')

/** Milliseconds that a page may take to show something. */
export const SHOWN_MS = 20_000

/** Milliseconds until a page is connected: it waits up to 30 s between two tries. */
const CONNECTED_MS = 45_000

export const PHONE: BrowserContextOptions = { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true }
export const SMALL_PHONE: BrowserContextOptions = { viewport: { width: 320, height: 600 }, hasTouch: true, isMobile: true }
export const DESKTOP: BrowserContextOptions = { viewport: { width: 1280, height: 800 } }

/** Starts Debian's Chromium. */
export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.HOOKWIRE_CHROMIUM ?? '/usr/bin/chromium',
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

export class Person {
  /** What the page reported as wrong: errors, refused loads, violations of the content security policy. */
  readonly complaints: string[] = []
  /** Requests to anywhere but this machine. */
  readonly external: string[] = []

  private constructor(
    readonly name: string,
    readonly context: BrowserContext,
    readonly page: Page,
  ) {}

  static async arrive(browser: Browser, url: string, name: string, options: BrowserContextOptions = DESKTOP): Promise<Person> {
    const context = await browser.newContext({ locale: 'en-GB', reducedMotion: 'reduce', ...options })
    return Person.#tab(context, url, name)
  }

  /** Opens another tab of the same browser. */
  another(url: string): Promise<Person> {
    return Person.#tab(this.context, url, this.name)
  }

  static async #tab(context: BrowserContext, url: string, name: string): Promise<Person> {
    const page = await context.newPage()
    page.setDefaultTimeout(SHOWN_MS)
    const person = new Person(name, context, page)
    page.on('pageerror', (error) => person.complaints.push(error.message))
    page.on('console', (message) => {
      // A browser reports a failed connection by itself; the tests cut connections on purpose.
      if (message.type() === 'error' && !/WebSocket connection to|net::ERR_/u.test(message.text())) {
        person.complaints.push(message.text())
      }
    })
    page.on('request', (request) => {
      if (!['127.0.0.1', 'localhost'].includes(new URL(request.url()).hostname)) {
        person.external.push(request.url())
      }
    })
    await page.goto(url)
    return person
  }

  async signIn(): Promise<void> {
    await this.page.getByLabel('Your name').fill(this.name)
    await this.page.getByRole('button', { name: 'Enter the chat' }).click()
    await this.connected()
  }

  async connected(): Promise<void> {
    await this.page.locator('.status.online').waitFor({ state: 'attached', timeout: CONNECTED_MS })
  }

  conversation(title: string | RegExp): Locator {
    return this.page.getByRole('navigation', { name: 'Conversations' }).getByRole('link', { name: title })
  }

  /** Opens a conversation, and waits until it is the one on the screen: until then the text field is another one's. */
  async open(title: string | RegExp): Promise<void> {
    await this.conversation(title).click()
    await this.shows(title)
  }

  /** Waits until a conversation is the one on the screen. */
  async shows(title: string | RegExp): Promise<void> {
    await this.page.getByRole('heading', { name: title, level: 1 }).waitFor()
  }

  async say(text: string): Promise<void> {
    await this.field.fill(text)
    await this.field.press('Enter')
  }

  get field(): Locator {
    return this.page.getByRole('textbox', { name: /^Message to/u })
  }

  get log(): Locator {
    return this.page.getByRole('log')
  }

  /** Waits until the log shows a text, as acknowledged. */
  async sees(text: string): Promise<void> {
    await this.log.locator('.row.sent .text').getByText(text, { exact: true }).first().waitFor()
  }

  /** The texts of the log, from top to bottom. */
  texts(): Promise<string[]> {
    return this.log.locator('.row .text').allTextContents()
  }

  /** Waits until something on the page is true. */
  async until(what: string, holds: () => Promise<boolean>): Promise<void> {
    const deadline = Date.now() + SHOWN_MS
    while (!(await holds())) {
      if (deadline < Date.now()) {
        throw new Error(`${this.name} waited in vain until ${what}`)
      }
      await this.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)))
    }
  }

  async screenshot(name: string): Promise<void> {
    await mkdir(SCREENSHOTS, { recursive: true })
    await this.page.screenshot({ path: `${SCREENSHOTS}${name}.png` })
  }

  /**
   * Returns what an accessibility checker finds on the page, WCAG 2.2 AA and good practice.
   *
   * The checker looks at one thing after the other and remembers what it saw. What it says about a page whose elements
   * changed meanwhile (a push came, a try to connect began) is about no page that anybody saw, so it looks again.
   */
  async barriers(): Promise<string[]> {
    // Evaluated by the protocol, not added as a script: the page's policy refuses foreign scripts.
    await this.page.evaluate(await readFile(AXE, 'utf8'))
    let found: string[] = []
    await this.until('the page stood still', async () => {
      const { changed, barriers } = await this.page.evaluate(async () => {
        const { axe } = window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] }> } }
        let changed = false
        const observer = new MutationObserver(() => (changed = true))
        observer.observe(document, { subtree: true, childList: true, attributes: true })
        const { violations } = await axe.run()
        changed ||= 0 < observer.takeRecords().length
        observer.disconnect()
        return { changed, barriers: violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary ?? ''}`)) }
      })
      found = barriers
      return !changed
    })
    return found
  }

  async leave(): Promise<void> {
    await this.page.close()
  }
}
