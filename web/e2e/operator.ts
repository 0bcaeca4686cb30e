/** Somebody at the console, in a browser of their own. */

import { mkdir, readFile } from 'node:fs/promises'
import type { Browser, BrowserContext, BrowserContextOptions, Locator, Page } from 'playwright-core'
import { AXE, DESKTOP, SCREENSHOTS, SHOWN_MS } from './people'
import type { Service } from './service'

/** What a client to try out is. */
export interface Client {
  readonly kind: string
  readonly hub?: string
  readonly user?: string
  readonly groups?: string
  readonly query?: string
  readonly withToken?: boolean
}

export class Operator {
  /** What the page reported as wrong: errors and violations of the content security policy. */
  readonly complaints: string[] = []
  /** Requests to anywhere but this machine. */
  readonly external: string[] = []

  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private readonly url: string,
  ) {}

  static async arrive(browser: Browser, service: Service, options: BrowserContextOptions = DESKTOP): Promise<Operator> {
    const context = await browser.newContext({ locale: 'en-GB', reducedMotion: 'reduce', ...options })
    return Operator.#tab(context, service.consoleUrl)
  }

  /** Opens another tab of the same browser, in the same session. */
  another(address = ''): Promise<Operator> {
    return Operator.#tab(this.context, this.url, address)
  }

  static async #tab(context: BrowserContext, url: string, address = ''): Promise<Operator> {
    const page = await context.newPage()
    page.setDefaultTimeout(SHOWN_MS)
    const operator = new Operator(context, page, url)
    page.on('pageerror', (error) => operator.complaints.push(error.message))
    page.on('console', (message) => {
      // A browser reports by itself what was refused and what broke off; the tests refuse and break off on purpose.
      if (message.type() === 'error' && !/WebSocket connection to|net::ERR_|Failed to load resource/u.test(message.text())) {
        operator.complaints.push(message.text())
      }
    })
    page.on('request', (request) => {
      if (new URL(request.url()).hostname !== '127.0.0.1') {
        operator.external.push(request.url())
      }
    })
    await page.goto(`${url}${address}`)
    return operator
  }

  async signIn(key: string): Promise<void> {
    await this.page.getByLabel('Access key').fill(key)
    await this.page.getByRole('button', { name: 'Sign in' }).click()
  }

  /** Opens a page by its name in the navigation. */
  async open(title: string): Promise<void> {
    await this.page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: title, exact: true }).click()
    await this.shows(title)
  }

  /** Opens a page by its address. */
  async goTo(address: string): Promise<void> {
    await this.page.evaluate((hash) => {
      location.hash = hash
    }, address)
  }

  /** Waits until a page of that name is on the screen. */
  async shows(title: string | RegExp): Promise<void> {
    await this.page.getByRole('heading', { name: title, level: 1, exact: typeof title === 'string' }).waitFor()
  }

  /** Waits until words are on the screen. */
  async sees(text: string | RegExp): Promise<void> {
    await this.page.getByText(text).first().waitFor()
  }

  /** Connects a client on the page “Try it”. */
  async connects({ kind, hub = 'chat', user = 'ann', groups, query, withToken = true }: Client): Promise<void> {
    const form = this.card('Client')
    await form.getByLabel('Kind').selectOption({ label: kind })
    await form.getByLabel('Hub').fill(hub)
    await form.getByLabel('With a token').setChecked(withToken)
    if (withToken) {
      await form.getByLabel('User', { exact: true }).fill(user)
    }
    if (groups !== undefined) {
      await form.getByLabel('Groups from the start').fill(groups)
    }
    if (query !== undefined) {
      await form.getByLabel('Query').fill(query)
    }
    await form.getByRole('button', { name: /^Connect/u }).click()
  }

  /** Waits until the client is connected. */
  async isConnected(): Promise<void> {
    await this.page.getByText('connected', { exact: true }).waitFor()
  }

  /** A part of the page by its heading. */
  card(title: string | RegExp): Locator {
    return this.page.locator('section.card', { has: this.page.getByRole('heading', { name: title, level: 2 }) })
  }

  /** The frames of the client that is tried out. */
  get frames(): Locator {
    return this.page.getByRole('log', { name: 'Frames' }).getByRole('listitem')
  }

  /** Waits until a frame with all these words is shown. */
  async seesFrame(direction: 'in' | 'out' | '·', ...words: readonly (string | RegExp)[]): Promise<void> {
    let frame = this.frames.filter({ hasText: direction })
    for (const each of words) {
      frame = frame.filter({ hasText: each })
    }
    await frame.first().waitFor()
  }

  async until(what: string, holds: () => Promise<boolean> | boolean): Promise<void> {
    const deadline = Date.now() + SHOWN_MS
    while (!(await holds())) {
      if (deadline < Date.now()) {
        throw new Error(`the operator waited in vain until ${what}`)
      }
      await this.page.evaluate(() => new Promise((resolve) => requestAnimationFrame(resolve)))
    }
  }

  async screenshot(name: string, fullPage = false): Promise<void> {
    await mkdir(SCREENSHOTS, { recursive: true })
    await this.page.screenshot({ path: `${SCREENSHOTS}${name}.png`, fullPage })
  }

  /** Returns what an accessibility checker finds on the page, WCAG 2.2 AA and good practice. */
  async barriers(): Promise<string[]> {
    // Evaluated by the protocol, not added as a script: the page's policy refuses foreign scripts.
    await this.page.evaluate(await readFile(AXE, 'utf8'))
    return this.page.evaluate(async () => {
      const { axe } = window as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string; failureSummary?: string }[] }[] }> } }
      const { violations } = await axe.run()
      return violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}: ${failureSummary ?? ''}`))
    })
  }

  /** Pixels by which the page is wider than the screen. */
  tooWide(): Promise<number> {
    return this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  }
}
