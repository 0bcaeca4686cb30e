/** What an operator sees, on a desktop and on a phone, light and dark: accessible, nothing cut off; screenshots to look at. */

import type { Browser, BrowserContextOptions } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Operator } from './operator'
import { DESKTOP, PHONE, launch } from './people'
import { Service } from './service'
import { Upstream } from './upstream'

let service: Service
let upstream: Upstream
let browser: Browser
let host: Operator

beforeAll(async () => {
  upstream = await Upstream.start()
  upstream.answers.set('order', { status: 503 })
  upstream.answers.set('greet', { body: '{"hello":"ann"}', type: 'application/json' })
  service = await Service.start('--upstream', `${upstream.url}/api/{event}`)
  browser = await launch()
  await furnish()
})
afterAll(async () => {
  await browser?.close()
  await service?.stop()
  await upstream?.stop()
})

/** Fills two hubs with clients that talk. */
async function furnish(): Promise<void> {
  host = await Operator.arrive(browser, service)
  await host.signIn(service.key)
  await host.open('Try it')
  await host.connects({ kind: 'json.reliable.webpubsub.azure.v1', hub: 'shop', user: 'ann', groups: 'staff, customers' })
  await host.isConnected()
  for (const name of ['greet', 'order']) {
    await host.page.getByLabel('Event', { exact: true }).fill(name)
    await host.page.getByRole('button', { name: 'Raise event' }).click()
  }
  await host.seesFrame('in', '"success":false')
  const stranger = await host.another('/#/try/shop')
  await stranger.connects({ kind: 'Web PubSub, no subprotocol', hub: 'shop', withToken: false, query: 'access_token=forged' })
  await stranger.seesFrame('·', 'the handshake was refused')
  await stranger.connects({ kind: 'json.webpubsub.azure.v1', hub: 'shop', user: 'Linus', groups: 'customers', query: '' })
  await stranger.isConnected()
}

const SCREENS: [string, BrowserContextOptions][] = [
  ['desktop', DESKTOP],
  ['phone', PHONE],
]

describe.each(SCREENS)('on a %s', (screen, options) => {
  it.each(['light', 'dark'] as const)('in %s colours everything is readable and reachable', async (colorScheme) => {
    const operator = await Operator.arrive(browser, service, { ...options, colorScheme })
    const look = async (what: string) => {
      await operator.screenshot(`console-${screen}-${colorScheme}-${what}`, screen === 'phone')
      expect(await operator.barriers(), what).toEqual([])
      expect(await operator.tooWide(), `${what} is wider than the screen`).toBe(0)
    }
    await operator.page.getByLabel('Access key').waitFor()
    await look('login')
    await operator.signIn(service.key)
    await operator.until('there are rates to draw', async () => 3 < (await operator.page.locator('path.line-1').first().getAttribute('d') ?? '').split('L').length)
    await look('overview')
    await operator.open('Hubs')
    await operator.page.getByRole('link', { name: 'shop' }).waitFor()
    await look('hubs')
    await operator.goTo('#/hubs/shop')
    await operator.page.getByRole('link', { name: 'ann' }).waitFor()
    await look('hub')
    await operator.goTo('#/hubs/shop/groups/customers')
    await operator.page.getByRole('link', { name: 'ann' }).waitFor()
    await look('group')
    await operator.page.getByRole('listitem').filter({ hasText: 'ann' }).getByRole('link').first().click()
    await operator.sees('Send to all groups: yes')
    await look('connection')
    await operator.page.getByRole('button', { name: 'Close connection …' }).click()
    await look('close')
    await operator.page.keyboard.press('Escape')
    await operator.open('Settings')
    await operator.page.getByRole('button', { name: 'Add a template' }).click()
    await operator.page.getByLabel('URL').fill('http://127.0.0.1:7071/api/{event}')
    await operator.sees('The template 1:')
    await look('templates')
    await operator.goTo('#/settings/handlers/shop')
    await operator.sees('The handler 1:')
    await operator.page.getByLabel('URL').fill('nonsense')
    await operator.page.locator('[aria-invalid="true"]').waitFor()
    await look('handlers')
    await operator.open('Events')
    await operator.sees('the upstream answered 503')
    await look('events')
    await operator.open('Try it')
    await operator.connects({ kind: 'protobuf.webpubsub.azure.v1', hub: 'trial', user: 'ann' })
    await operator.isConnected()
    await operator.page.getByRole('button', { name: 'Join' }).click()
    await operator.page.getByRole('button', { name: 'Send to group' }).click()
    await operator.seesFrame('in', 'lobby')
    await look('try')
    expect(operator.complaints).toEqual([])
    expect(operator.external).toEqual([])
    await operator.context.close()
  })

  it('everything is reached with the keyboard, and the focus is seen', async () => {
    const operator = await Operator.arrive(browser, service, options)
    await operator.page.getByLabel('Access key').waitFor()
    await operator.page.keyboard.type(service.key)
    await operator.page.keyboard.press('Enter')
    await operator.shows('Overview')
    await operator.page.keyboard.press('Tab')
    const skip = operator.page.getByRole('link', { name: 'To the content' })
    for (let steps = 0; steps < 40 && !(await skip.evaluate((element) => element === document.activeElement)); steps += 1) {
      await operator.page.keyboard.press('Tab')
    }
    expect(await skip.evaluate((element) => element === document.activeElement)).toBe(true)
    const hubs = operator.page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Hubs' })
    for (let steps = 0; steps < 40 && !(await hubs.evaluate((element) => element === document.activeElement)); steps += 1) {
      await operator.page.keyboard.press('Tab')
    }
    expect(await hubs.evaluate((element) => getComputedStyle(element).outlineStyle)).toBe('solid')
    await operator.page.keyboard.press('Enter')
    await operator.shows('Hubs')
    expect(await operator.page.evaluate(() => document.activeElement?.tagName)).toBe('H1')
    await operator.context.close()
  })
})
