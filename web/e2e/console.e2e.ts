/** The console: everything that it promises, in real browsers against the real service. */

import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Operator } from './operator'
import { launch } from './people'
import { Service } from './service'
import { Upstream } from './upstream'

let service: Service
let upstream: Upstream
let browser: Browser
let operators: Operator[] = []

beforeAll(async () => {
  upstream = await Upstream.start()
  service = await Service.start('--upstream', `${upstream.url}/{event}`)
  browser = await launch()
})
afterEach(async () => {
  const all = operators
  operators = []
  await Promise.all(all.map(({ context }) => context.close()))
  upstream.answers.clear()
  expect(all.flatMap(({ complaints }) => complaints), 'errors on the pages').toEqual([])
  expect(all.flatMap(({ external }) => external), 'requests to elsewhere').toEqual([])
})
afterAll(async () => {
  await browser?.close()
  expect(await service?.stop(), 'how the service ended').toBe(0)
  await upstream?.stop()
})

/** Somebody signs in. */
async function arrives(): Promise<Operator> {
  const operator = await Operator.arrive(browser, service)
  operators.push(operator)
  await operator.signIn(service.key)
  await operator.shows('Overview')
  return operator
}

/** Another tab with a client of the hub that is tried out. */
async function client(operator: Operator, hub: string, user: string, groups?: string): Promise<Operator> {
  const tab = await operator.another(`/#/try/${hub}`)
  operators.push(tab)
  await tab.shows('Try it')
  await tab.connects({ kind: 'json.webpubsub.azure.v1', hub, user, ...(groups === undefined ? {} : { groups }) })
  await tab.seesFrame('in', '"event":"connected"')
  return tab
}

describe('signing in', () => {
  it('takes the key, keeps the session in a cookie that scripts cannot read, and ends it', async () => {
    const operator = await arrives()
    const cookies = await operator.context.cookies()
    expect(cookies.map(({ httpOnly, sameSite }) => ({ httpOnly, sameSite }))).toEqual([{ httpOnly: true, sameSite: 'Strict' }])
    expect(JSON.stringify(cookies)).not.toContain(service.key)
    await operator.page.reload()
    await operator.shows('Overview')
    await operator.page.getByRole('button', { name: 'Sign out' }).click()
    await operator.page.getByLabel('Access key').waitFor()
    expect(await operator.context.cookies()).toEqual([])
    await operator.page.reload()
    await operator.page.getByLabel('Access key').waitFor()
  })

  it('is asked for again when the session is gone', async () => {
    const operator = await arrives()
    await operator.context.clearCookies()
    await operator.sees('The session has ended. Sign in again.')
    await operator.signIn(service.key)
    await operator.shows('Overview')
  })

  it('says what is wrong with a wrong key, and that there were too many', async () => {
    const other = await Service.start()
    try {
      const operator = await Operator.arrive(browser, other)
      operators.push(operator)
      await operator.page.getByRole('button', { name: 'Sign in' }).click()
      await operator.sees('Enter one of the service’s access keys.')
      await operator.signIn('not-the-key-not-the-key-not-the-key')
      await operator.sees('That is none of the access keys of this service.')
      for (let tries = 0; tries < 8 && !(await operator.page.getByText('Too many wrong keys').isVisible()); tries += 1) {
        const answered = operator.page.waitForResponse(/\/console\/api\/login$/u)
        await operator.signIn(`wrong-${tries}-wrong-wrong-wrong-wrong-wrong`)
        await answered
        await operator.page.getByRole('button', { name: 'Sign in' }).waitFor()
      }
      await operator.sees(/^Too many wrong keys\. Try again in \d+ s\.$/u)
    } finally {
      expect(await other.stop()).toBe(0)
    }
  })
})

describe('the overview', () => {
  it('counts what is there and draws what happens', async () => {
    const operator = await arrives()
    const ann = await client(operator, 'overview', 'ann')
    await operator.until('the connection is counted', async () => (await operator.page.locator('.tiles .value').first().textContent()) === '1')
    await operator.page.getByRole('img', { name: /^Connections: Web PubSub 1 now/u }).waitFor()
    await ann.page.getByRole('button', { name: 'Raise event' }).click()
    await operator.page.getByRole('img', { name: /^Upstream calls per second: calls .* now, 0\.\d+ at most/u }).waitFor()
    await operator.page.getByRole('table', { name: 'Shards' }).waitFor()
    await operator.sees(new URL(service.consoleUrl).host)
  })

  it('says that the service does not answer, and goes on when it does', async () => {
    const operator = await arrives()
    await operator.context.setOffline(true)
    await operator.sees('The service does not answer. Is it running? The figures are not of now.')
    await operator.context.setOffline(false)
    await operator.page.getByText('The figures are not of now.').waitFor({ state: 'detached' })
  })
})

describe('hubs', () => {
  it('show connections, users and groups, and find them', async () => {
    const operator = await arrives()
    await client(operator, 'people', 'ann', 'staff')
    await client(operator, 'people', 'bob/c')
    await operator.open('Hubs')
    await operator.page.getByRole('link', { name: 'people' }).click()
    await operator.shows('people')
    await operator.page.getByRole('list', { name: 'connections' }).getByRole('link', { name: 'bob/c' }).waitFor()
    expect(await operator.page.getByRole('list', { name: 'connections' }).getByRole('listitem').count()).toBe(2)

    await operator.page.getByRole('link', { name: 'Users' }).click()
    await operator.page.getByRole('list', { name: 'users' }).getByRole('link', { name: 'bob/c' }).click()
    await operator.shows('bob/c')
    const id = (await operator.page.getByRole('list', { name: 'connections' }).getByRole('link').first().textContent()) ?? ''

    await operator.page.getByRole('link', { name: 'people' }).click()
    await operator.page.getByRole('link', { name: 'Groups' }).click()
    await operator.page.getByRole('list', { name: 'groups' }).getByRole('link', { name: 'staff' }).waitFor()

    const find = operator.card('Find')
    await find.getByLabel('Id or name').fill('nobody')
    await find.getByRole('button', { name: 'Find' }).click()
    await operator.sees('No connection of that id is connected.')
    await find.getByLabel('Id or name').fill(id)
    await find.getByRole('button', { name: 'Find' }).click()
    await operator.shows(id)
    await operator.sees('Web PubSub')
  })

  it('have pages of connections', async () => {
    const operator = await arrives()
    const tab = await client(operator, 'crowd', 'ann')
    await tab.page.evaluate(async () => {
      const answer = await fetch('/api/hubs/crowd/:generateToken?userId=many', { method: 'POST', headers: { 'X-Hookwire-Console': '1' } })
      const { token } = (await answer.json()) as { token: string }
      const opened = Array.from({ length: 55 }, () => {
        const socket = new WebSocket(`ws://${location.host}/client/hubs/crowd?access_token=${token}`)
        return new Promise((resolve, reject) => {
          socket.onopen = resolve
          socket.onerror = reject
        })
      })
      await Promise.all(opened)
    })
    await operator.goTo('#/hubs/crowd')
    const list = operator.page.getByRole('list', { name: 'connections' })
    await operator.until('the first page is full', async () => (await list.getByRole('listitem').count()) === 50)
    await operator.page.getByRole('button', { name: 'Next' }).click()
    await operator.until('the second page shows the rest', async () => (await list.getByRole('listitem').count()) === 6)
    await operator.sees('Page 2')
    await operator.page.getByRole('button', { name: 'Previous' }).click()
    await operator.until('the first page is back', async () => (await list.getByRole('listitem').count()) === 50)
  })

  it('take messages for everybody, a group, a user and a connection', async () => {
    const operator = await arrives()
    const ann = await client(operator, 'news', 'ann', 'staff')
    for (const [address, card, text] of [
      ['#/hubs/news', 'Send to everybody in the hub', 'to all'],
      ['#/hubs/news/groups/staff', 'Send to the group', 'to the group'],
      ['#/hubs/news/users/ann', 'Send to the user', 'to the user'],
    ] as const) {
      await operator.goTo(address)
      const form = operator.card(card)
      await form.getByLabel('Message').fill(text)
      await form.getByRole('button', { name: 'Send' }).click()
      await operator.sees('Sent: the message stands in line')
      await ann.seesFrame('in', `"data":"${text}"`)
    }
    await operator.goTo('#/hubs/news')
    await operator.page.getByRole('list', { name: 'connections' }).getByRole('link').first().click()
    const form = operator.card('Send to the connection')
    await form.getByLabel('As').selectOption('JSON')
    await form.getByLabel('Message').fill('{"n":')
    await operator.sees(/^This is not JSON/u)
    expect(await form.getByRole('button', { name: 'Send' }).isDisabled()).toBe(true)
    await form.getByLabel('Message').fill('{"n":12345678901234567890}')
    await form.getByRole('button', { name: 'Send' }).click()
    await ann.seesFrame('in', '"dataType":"json"', '{"n":12345678901234567890}')
  })

  it('let a connection be put into groups, given permissions, and closed', async () => {
    const operator = await arrives()
    const ann = await client(operator, 'orders', 'ann')
    await operator.goTo('#/hubs/orders')
    await operator.page.getByRole('list', { name: 'connections' }).getByRole('link').first().click()

    const groups = operator.card('Groups')
    await groups.getByLabel('Add to group').fill('a/b')
    await groups.getByRole('button', { name: 'Add' }).click()
    await groups.getByRole('link', { name: 'a/b' }).waitFor()
    await groups.getByRole('button', { name: 'Remove from a/b' }).click()
    await groups.getByText('In no group.').waitFor()

    const permissions = operator.card('Permissions')
    await permissions.getByText('Send to all groups: yes').waitFor()
    await permissions.getByLabel('Permission', { exact: true }).selectOption('Send to')
    await permissions.getByRole('button', { name: 'Deny' }).click()
    await permissions.getByText('Send to all groups: no').waitFor()
    await permissions.getByLabel('Group', { exact: true }).fill('a/b')
    await permissions.getByRole('button', { name: 'Check' }).click()
    await permissions.getByText('The connection may not send to “a/b”.').waitFor()
    await permissions.getByRole('button', { name: 'Grant' }).click()
    await permissions.getByText('The connection may now send to “a/b”.').waitFor()
    await permissions.getByRole('definition').filter({ hasText: 'a/b' }).waitFor()
    await permissions.getByRole('button', { name: 'Check' }).click()
    await permissions.getByText('The connection may send to “a/b”.').waitFor()

    await operator.page.getByRole('button', { name: 'Close connection …' }).click()
    await operator.page.getByRole('dialog').getByLabel('Reason').fill('tidying up')
    await operator.page.getByRole('dialog').getByRole('button', { name: 'Close connection' }).click()
    await ann.seesFrame('in', '"event":"disconnected"', 'tidying up')
    await ann.seesFrame('·', 'closed')
    await operator.sees('There is no such connection any more.')
  })
})

describe('settings', () => {
  it('of the preview are checked while they are typed, tried out, stored, and in effect', async () => {
    const operator = await arrives()
    await operator.open('Settings')
    await operator.page.getByRole('button', { name: 'Add a template' }).click()
    await operator.page.getByLabel('URL').fill('nonsense')
    await operator.page.locator('[aria-invalid="true"]').waitFor()
    const save = operator.page.getByRole('button', { name: 'Save' })
    await operator.until('nothing can be saved', () => save.isDisabled())
    await operator.page.getByLabel('URL').fill(`${upstream.url}/templates/{hub}/{event}`)
    const tester = operator.card('Who would get this event?')
    await tester.getByText('The template 1:').waitFor()
    await tester.getByText(`${upstream.url}/templates/chat/message`).waitFor()
    await operator.page.getByLabel('Events', { exact: true }).fill('connect')
    await tester.locator('.fault').waitFor()
    await operator.page.getByLabel('Events', { exact: true }).fill('*')
    await tester.getByText('The template 1:').waitFor()
    await save.click()
    await operator.sees('Saved: these templates hold')
    await operator.page.reload()
    await operator.until('the template is there', async () => (await operator.page.getByLabel('URL').inputValue()).includes('/templates/'))

    upstream.answers.set('message', { body: 'from the template' })
    await operator.open('Try it')
    await operator.connects({ kind: 'Preview client', hub: 'old', user: 'ann' })
    await operator.isConnected()
    await operator.page.getByRole('button', { name: 'Send', exact: true }).click()
    await operator.seesFrame('in', 'from the template')
    expect(upstream.seen).toContain('/templates/old/message message ann')

    await operator.open('Settings')
    await operator.page.getByRole('button', { name: 'Remove template 1' }).click()
    await save.click()
    await operator.sees('No template: nobody gets an event.')
    await operator.sees('Saved: these templates hold')
  })

  it('of Web PubSub are checked while they are typed, tried out, stored, in effect, and taken back', async () => {
    const operator = await arrives()
    await operator.goTo('#/settings/handlers')
    await operator.page.getByLabel('Hub').fill('shop')
    await operator.page.getByRole('button', { name: 'Open' }).click()
    await operator.sees('Settings of shop, the defaults for all hubs.')
    await operator.page.getByLabel('URL').fill('ftp://nowhere')
    await operator.page.locator('[aria-invalid="true"]').waitFor()
    await operator.page.getByLabel('URL').fill(`${upstream.url}/handlers/{hub}/{event}`)
    await operator.page.getByLabel('Events that clients raise').fill('order')
    const tester = operator.card('Who would get this event?')
    await tester.locator('.fault').waitFor()
    await tester.getByLabel('Name').fill('order')
    await tester.getByText(`${upstream.url}/handlers/shop/order`).waitFor()
    await operator.page.getByRole('button', { name: 'Save' }).click()
    await operator.sees('Saved: these settings hold')
    await operator.sees('saved here; stand above the configuration file')

    const ann = await client(operator, 'shop', 'ann')
    await ann.page.getByLabel('Event', { exact: true }).fill('order')
    await ann.page.getByRole('button', { name: 'Raise event' }).click()
    await ann.seesFrame('in', '"type":"ack"', '"success":true')
    expect(upstream.seen).toContain('/handlers/shop/order order ann')
    await ann.page.getByLabel('Event', { exact: true }).fill('other')
    await ann.page.getByRole('button', { name: 'Raise event' }).click()
    await ann.seesFrame('in', '"success":false')

    await operator.page.getByRole('button', { name: 'Back to the file’s settings' }).click()
    await operator.sees('Settings of shop, the defaults for all hubs.')
  })
})

describe('events', () => {
  it('that an upstream refused are seen live, with the reason', async () => {
    const operator = await arrives()
    await operator.open('Events')
    await operator.page.getByText('live', { exact: true }).waitFor()
    const log = operator.page.getByRole('region', { name: 'Event log' }).getByRole('listitem')
    const ann = await client(operator, 'log', 'ann')
    upstream.answers.set('greet', { status: 503 })
    await ann.page.getByRole('button', { name: 'Raise event' }).click()
    const refused = log.filter({ hasText: 'greet' }).filter({ hasText: 'upstream failed' })
    await refused.getByText('503', { exact: false }).first().waitFor()
    expect(await refused.locator('.reason').textContent()).toMatch(/^The upstream answered 503/u)
    await log.filter({ hasText: 'connected' }).first().waitFor()

    await operator.page.getByLabel('Hub').fill('log')
    await operator.page.getByLabel('Only what failed').check()
    await operator.until('only what failed is left', async () => (await log.count()) === 1)
    await refused.waitFor()

    await operator.page.getByRole('button', { name: 'Pause' }).click()
    upstream.answers.set('greet', { status: 404 })
    await ann.page.getByRole('button', { name: 'Raise event' }).click()
    await operator.page.getByRole('button', { name: 'Resume, 1 new' }).waitFor()
    expect(await log.count()).toBe(1)
    await operator.page.getByRole('button', { name: 'Resume, 1 new' }).click()
    await operator.until('both are there', async () => (await log.count()) === 2)
  })

  it('tell why somebody was not let in', async () => {
    const operator = await arrives()
    const stranger = await operator.another('/#/try')
    operators.push(stranger)
    await stranger.connects({ kind: 'Web PubSub, no subprotocol', hub: 'closed', withToken: false, query: 'access_token=forged' })
    await stranger.seesFrame('·', 'the handshake was refused')
    expect(await stranger.page.getByRole('log').textContent()).not.toContain('forged')
    await operator.goTo('#/events/closed')
    const refused = operator.page.getByRole('region', { name: 'Event log' }).getByRole('listitem').filter({ hasText: 'handshake' })
    await refused.first().waitFor()
    expect((await refused.first().locator('.reason').textContent())?.length).toBeGreaterThan(10)
  })
})

describe('a client to try out', () => {
  it('of the preview sends frames of both kinds', async () => {
    const operator = await arrives()
    await operator.open('Try it')
    await operator.connects({ kind: 'Preview client', hub: 'trial', user: 'ann', query: 'lang=en' })
    await operator.isConnected()
    await operator.page.getByLabel('Message').fill('hi there!')
    await operator.page.getByRole('button', { name: 'Send', exact: true }).click()
    await operator.seesFrame('out', 'text, 9 bytes', 'hi there!')
    await operator.page.getByLabel('As').selectOption('Binary frame, from base64')
    await operator.sees('This is not base64.')
    await operator.page.getByLabel('Message').fill('AP8=')
    await operator.page.getByRole('button', { name: 'Send', exact: true }).click()
    await operator.seesFrame('out', 'binary, 2 bytes', '00 ff')
    const tab = await operator.another('/#/hubs/trial')
    operators.push(tab)
    await tab.page.getByRole('list', { name: 'connections' }).getByRole('link').first().click()
    await tab.page.getByRole('definition').filter({ hasText: /^lang=en$/u }).waitFor()
    await tab.page.close()
    await operator.page.getByRole('button', { name: 'Disconnect' }).click()
    await operator.seesFrame('·', 'code 1000')
  })

  it('without a subprotocol gets what the upstream answers', async () => {
    const operator = await arrives()
    upstream.answers.set('message', { body: 'an answer', type: 'application/octet-stream' })
    await operator.open('Try it')
    await operator.connects({ kind: 'Web PubSub, no subprotocol', hub: 'trial' })
    await operator.isConnected()
    await operator.page.getByRole('button', { name: 'Send', exact: true }).click()
    await operator.seesFrame('out', 'text, 5 bytes')
    await operator.seesFrame('in', 'binary, 9 bytes', 'an answer', '61 6e 20')
  })

  it.each(['json.webpubsub.azure.v1', 'json.reliable.webpubsub.azure.v1', 'protobuf.webpubsub.azure.v1'])('of %s joins, sends, raises events', async (kind) => {
    const operator = await arrives()
    upstream.answers.set('greet', { body: '{"welcome":1}', type: 'application/json' })
    const binary = kind.startsWith('protobuf')
    await operator.open('Try it')
    await operator.connects({ kind, hub: 'trial' })
    await operator.seesFrame('·', `subprotocol ${kind}`)
    await operator.seesFrame('in', 'connected', 'connectionId')
    await operator.page.getByRole('button', { name: 'Join' }).click()
    await operator.seesFrame('in', 'ack', '"success":true')
    await operator.page.getByLabel('Data').fill('[1,2]')
    await operator.page.getByLabel('Type').selectOption('JSON')
    await operator.page.getByRole('button', { name: 'Send to group' }).click()
    await operator.seesFrame('out', 'sendToGroup', 'lobby', '[1,2]')
    await operator.seesFrame('in', 'lobby', '[1,2]')
    await operator.page.getByRole('button', { name: 'Raise event' }).click()
    await operator.seesFrame('in', 'server', 'welcome')
    await operator.page.getByRole('button', { name: 'Ping' }).click()
    await operator.seesFrame('in', 'pong')
    if (kind.includes('reliable')) {
      await operator.seesFrame('out', '"type":"sequenceAck"')
      await operator.seesFrame('in', '"reconnectionToken":"(hidden)"')
    }
    if (binary) {
      await operator.seesFrame('out', 'binary', '0000  ')
    }
    expect(await operator.page.getByRole('log').textContent()).not.toMatch(/access_token|eyJ/u)
    await operator.page.getByRole('button', { name: 'Leave' }).click()
    await operator.seesFrame('out', 'leaveGroup')
  })
})
