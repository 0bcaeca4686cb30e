/**
 * People talk: everything that the chat room promises, in real browsers against the real service. What people say to each
 * other is tried in both dialects of the service; what the page does by itself, in one.
 */

import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { PHONE, Person, launch } from './people'
import { DIALECT, Service } from './service'

let service: Service
let browser: Browser
let people: Person[] = []
let counted = 0

beforeAll(async () => {
  service = await Service.start()
  browser = await launch()
})
afterEach(async () => {
  const all = people
  people = []
  await Promise.all(all.map((person) => person.context.close()))
  expect(all.flatMap(({ complaints }) => complaints), 'errors on the pages').toEqual([])
  expect(all.flatMap(({ external }) => external), 'requests to elsewhere').toEqual([])
})
afterAll(async () => {
  await browser?.close()
  expect(await service?.stop(), 'how the service ended').toBe(service?.owned === true ? 0 : undefined)
})

/** Somebody new signs in; names are never used twice, so the tests do not disturb each other. */
async function arrives(name: string, options?: Parameters<typeof Person.arrive>[3]): Promise<Person> {
  counted += 1
  const person = await Person.arrive(browser, service.url, `${name} ${counted}`, options)
  people.push(person)
  await person.signIn()
  return person
}

async function anotherTab(person: Person): Promise<Person> {
  const tab = await person.another(service.url)
  people.push(tab)
  await tab.connected()
  return tab
}

function unread(person: Person, title: string, count: number): Promise<void> {
  const wanted = count === 1 ? '1 unread message' : `${count} unread messages`
  return person.until(`${title} has ${wanted}`, async () => {
    const name = (await person.conversation(title).textContent()) ?? ''
    return count === 0 ? !name.includes('unread') : name.includes(wanted)
  })
}

async function talksTo(person: Person, other: Person): Promise<void> {
  await person.page.getByRole('button', { name: new RegExp(`^${other.name}\\s*, write`, 'u') }).click()
  await person.shows(other.name)
}

async function makesGroup(person: Person, title: string, ...invited: Person[]): Promise<void> {
  await person.page.getByRole('button', { name: 'New group' }).click()
  await person.page.getByLabel('Name of the group').fill(title)
  for (const { name } of invited) {
    await person.page.getByRole('checkbox', { name, exact: true }).check()
  }
  await person.page.getByRole('button', { name: /^Create group/u }).click()
  await person.shows(title)
}

describe('in the public room', () => {
  it('everybody reads what anybody writes, once, with sender and time', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const text = `Hello everybody, ${counted}`
    await ada.say(text)
    await bob.sees(text)
    await bob.say(`Hello ${ada.name}`)
    await ada.sees(`Hello ${ada.name}`)
    for (const person of [ada, bob]) {
      expect((await person.texts()).filter((each) => each === text)).toHaveLength(1)
      const row = person.log.locator('.row', { hasText: text }).first()
      expect(await row.locator('.user').textContent()).toBe(ada.name)
      expect(await row.locator('time').first().getAttribute('datetime')).toMatch(/^\d{4}-\d\d-\d\dT/u)
    }
    expect(await ada.log.locator('.day').last().textContent()).toBe('Today')
    expect(await ada.field.inputValue()).toBe('')
  })

  it('text stays text, and addresses can be opened safely', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const text = `<img src=x onerror=alert(1)> <b>${counted}</b> https://example.com/a_(b).`
    await ada.say(text)
    await bob.sees(text)
    expect(await bob.log.locator('img, b').count()).toBe(0)
    const link = bob.log.getByRole('link', { name: 'https://example.com/a_(b)' }).last()
    expect(await link.getAttribute('rel')).toContain('noopener')
    expect(await link.getAttribute('target')).toBe('_blank')
  })

  it('Shift+Enter makes a new line', async () => {
    const ada = await arrives('Ada')
    await ada.field.pressSequentially('one')
    await ada.field.press('Shift+Enter')
    await ada.field.pressSequentially(`two ${counted}`)
    await ada.field.press('Enter')
    await ada.until('both lines are one message', async () => (await ada.texts()).at(-1) === `one\ntwo ${counted}`)
  })

  it('shows who is online, several tabs of one user once', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const tab = await anotherTab(bob)
    const online = ada.page.getByRole('button', { name: new RegExp(`^${bob.name}\\s*, write`, 'u') })
    await online.waitFor()
    expect(await online.count()).toBe(1)
    await bob.leave()
    await tab.say(`Still here, ${counted}`)
    await ada.sees(`Still here, ${counted}`)
    expect(await online.count()).toBe(1)
    await tab.leave()
    await online.waitFor({ state: 'detached' })
  })
})

describe('direct messages', () => {
  it('reach the other only, are marked unread in the list and the title until they are seen', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const eve = await arrives('Eve')
    await talksTo(bob, ada)
    await bob.say('Between us')
    await bob.say('A second one')
    await unread(ada, bob.name, 2)
    expect(await ada.page.title()).toMatch(/^\(\d+\) /u)
    await ada.open(bob.name)
    await ada.sees('A second one')
    await unread(ada, bob.name, 0)
    await ada.say('Understood')
    await bob.sees('Understood')
    expect(await eve.conversation(bob.name).count()).toBe(0)
  })

  it('look the same in all tabs of a user', async () => {
    const ada = await arrives('Ada')
    const tab = await anotherTab(ada)
    const bob = await arrives('Bob')
    await talksTo(bob, ada)
    await bob.say('For both tabs')
    await Promise.all([unread(ada, bob.name, 1), unread(tab, bob.name, 1)])
    await ada.open(bob.name)
    await ada.sees('For both tabs')
    await Promise.all([unread(ada, bob.name, 0), unread(tab, bob.name, 0)])
    await ada.say('Written in one tab')
    await tab.open(bob.name)
    await tab.sees('Written in one tab')
  })
})

describe('groups', () => {
  it('are created, joined by invitation, grow, and are left', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const eve = await arrives('Eve')
    const title = `Group ${counted}`
    await makesGroup(ada, title, bob)
    await ada.say('Welcome')
    await bob.conversation(title).getByText('Invited').waitFor()
    await bob.open(title)
    await bob.page.getByRole('button', { name: 'Join the group' }).click()
    await bob.sees('Welcome')
    await bob.say('Thank you')
    await ada.sees('Thank you')

    await bob.page.getByRole('button', { name: 'Members' }).click()
    await bob.page.getByRole('checkbox', { name: eve.name, exact: true }).check()
    await bob.page.getByRole('button', { name: 'Invite', exact: true }).click()
    await bob.page.getByRole('dialog').getByRole('listitem').filter({ hasText: eve.name }).getByText('Invited').waitFor()
    await bob.page.keyboard.press('Escape')
    await eve.open(title)
    await eve.page.getByRole('button', { name: 'Decline' }).click()
    await eve.conversation(title).waitFor({ state: 'detached' })

    await ada.page.getByText('2 members').waitFor()
    await bob.page.getByRole('button', { name: 'Members' }).click()
    await bob.page.getByRole('button', { name: 'Leave the group' }).click()
    await bob.page.getByRole('button', { name: 'Leave', exact: true }).click()
    await bob.conversation(title).waitFor({ state: 'detached' })
    await ada.page.getByText('1 member ').waitFor()
    await ada.say('Now I am alone')
    await ada.sees('Now I am alone')
    expect(await bob.conversation(title).count()).toBe(0)
  })

  it('reach every tab of a member, whether it was opened before joining or after, and none of who left', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const before = await anotherTab(bob)
    const title = `Tabs ${counted}`
    await makesGroup(ada, title, bob)
    await bob.open(title)
    await bob.page.getByRole('button', { name: 'Join the group' }).click()
    await bob.field.waitFor()
    // What is read in one tab is read in all, so nobody looks when it comes.
    await bob.open('Public room')
    const after = await anotherTab(bob)
    await ada.say('For all tabs')
    await Promise.all([bob, before, after].map((tab) => unread(tab, title, 1)))
    for (const tab of [bob, before, after]) {
      await tab.open(title)
      await tab.sees('For all tabs')
    }

    await before.page.getByRole('button', { name: 'Members' }).click()
    await before.page.getByRole('button', { name: 'Leave the group' }).click()
    await before.page.getByRole('button', { name: 'Leave', exact: true }).click()
    await Promise.all([bob, before, after].map((tab) => tab.conversation(title).waitFor({ state: 'detached' })))
    await ada.say('Without Bob')
    await ada.sees('Without Bob')
    await ada.page.getByText('1 member ').waitFor()
    for (const tab of [bob, before, after]) {
      expect(await tab.conversation(title).count()).toBe(0)
    }
  })
})

describe.runIf(DIALECT === 'preview')('history', () => {
  it('is there on opening and pages back without moving what is in sight', async () => {
    const ada = await arrives('Ada')
    const title = `History ${counted}`
    const bob = await arrives('Bob')
    await makesGroup(ada, title, bob)
    const written = Array.from({ length: 120 }, (_, i) => `Line ${i + 1}`)
    for (const [i, text] of written.entries()) {
      await ada.say(text)
      if (i % 40 === 39) {
        await ada.sees(text)
      }
    }
    await bob.open(title)
    await bob.page.getByRole('button', { name: 'Join the group' }).click()
    await bob.sees('Line 120')
    expect((await bob.texts()).length).toBeLessThan(120)

    let before = await bob.texts()
    while (before[0] !== 'Line 1') {
      const first = before[0] ?? ''
      await bob.log.evaluate((log) => {
        log.scrollTop = 0
      })
      const place = () => bob.log.locator('.text').getByText(first, { exact: true }).evaluate((row) => Math.round(row.getBoundingClientRect().top))
      await bob.until('older messages are shown', async () => (await bob.texts())[0] !== first)
      const top = await place()
      const [head, foot] = await bob.log.evaluate((log) => [log.getBoundingClientRect().top, log.getBoundingClientRect().bottom])
      expect(top, `${first} is still in sight`).toBeGreaterThanOrEqual(head ?? NaN)
      expect(top, `${first} is still in sight`).toBeLessThan(foot ?? NaN)
      before = await bob.texts()
    }
    expect(before).toEqual(written)
  })

  it('does not follow new messages while somebody reads old ones, and says that they came', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    for (let line = 1; line <= 40; line += 1) {
      await ada.say(`Filling ${line} of ${counted}`)
    }
    await bob.sees(`Filling 40 of ${counted}`)
    // Far enough from the end that the log stops following, not so far that it loads older messages.
    await bob.log.evaluate((log) => {
      log.scrollTop = log.scrollHeight - log.clientHeight - 100
    })
    await bob.page.getByRole('button', { name: 'Newest messages' }).waitFor()
    const top = await bob.log.evaluate((log) => log.scrollTop)
    await ada.say(`News for ${counted}`)
    const button = bob.page.getByRole('button', { name: '1 new message' })
    await button.waitFor()
    expect(await bob.log.evaluate((log) => log.scrollTop)).toBe(top)
    await unread(bob, 'Public room', 1)
    await button.click()
    await unread(bob, 'Public room', 0)
    await button.waitFor({ state: 'detached' })
  })
})

describe.runIf(DIALECT === 'preview')('the page', () => {
  it('keeps a draft for each conversation, also over a reload', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    await ada.field.fill('For everybody, later')
    await talksTo(ada, bob)
    expect(await ada.field.inputValue()).toBe('')
    await ada.field.fill('For Bob, later')
    await ada.page.reload()
    await ada.connected()
    await ada.shows(bob.name)
    expect(await ada.field.inputValue()).toBe('For Bob, later')
    await ada.open('Public room')
    expect(await ada.field.inputValue()).toBe('For everybody, later')
  })

  it('is used with the keyboard alone', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const focused = () => ada.page.evaluate(() => document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent ?? '')
    expect(await focused()).toBe('Message to Public room')

    await ada.page.getByRole('button', { name: 'New direct message' }).focus()
    await ada.page.keyboard.press('Enter')
    await ada.page.getByRole('dialog', { name: 'New direct message' }).waitFor()
    await ada.page.keyboard.press('Escape')
    await ada.page.getByRole('dialog').waitFor({ state: 'detached' })
    expect(await focused()).toBe('New direct message')

    await ada.page.keyboard.press('Enter')
    await ada.page.getByRole('searchbox', { name: 'Write to' }).focus()
    await ada.page.keyboard.type(bob.name)
    await ada.page.keyboard.press('Enter')
    await ada.shows(bob.name)
    await ada.until('the text field has the focus', async () => (await focused()) === `Message to ${bob.name}`)
    await ada.page.keyboard.type('Without a mouse')
    await ada.page.keyboard.press('Enter')
    await ada.sees('Without a mouse')

    await ada.page.keyboard.press('Alt+ArrowUp')
    await ada.until('the public room is open', async () => (await focused()) === 'Message to Public room')
    await ada.conversation('Public room').focus()
    await ada.page.keyboard.press('ArrowDown')
    expect(await focused()).toContain(bob.name)
    await ada.page.keyboard.press('Home')
    expect(await focused()).toContain('Public room')
    await ada.page.keyboard.press('End')
    await ada.page.keyboard.press('ArrowUp')
    await ada.conversation(bob.name).focus()
    await ada.page.keyboard.press('Enter')
    await ada.until('the direct conversation is open', async () => (await focused()) === `Message to ${bob.name}`)
  })

  it('remembers the chosen colours', async () => {
    const ada = await arrives('Ada')
    const ground = () => ada.page.evaluate(() => getComputedStyle(document.body).backgroundColor)
    const light = await ground()
    await ada.page.getByRole('button', { name: 'Settings' }).click()
    await ada.page.getByText('Dark', { exact: true }).click()
    const dark = await ground()
    expect(dark).not.toBe(light)
    await ada.page.reload()
    await ada.connected()
    expect(await ground()).toBe(dark)
  })

  it('goes back from a conversation to the list on a phone', async () => {
    const ada = await arrives('Ada', PHONE)
    await ada.conversation('Public room').waitFor()
    expect(await ada.log.count()).toBe(0)
    await ada.open('Public room')
    await ada.say(`From a phone, ${counted}`)
    await ada.sees(`From a phone, ${counted}`)
    await ada.page.getByRole('button', { name: 'Back to the conversations' }).click()
    await ada.conversation('Public room').waitFor()
    await ada.open('Public room')
    await ada.log.waitFor()
    await ada.page.goBack()
    await ada.conversation('Public room').waitFor()
  })

  it('signs out in every tab', async () => {
    const ada = await arrives('Ada')
    const tab = await anotherTab(ada)
    await ada.page.getByRole('button', { name: 'Settings' }).click()
    await ada.page.getByRole('button', { name: 'Sign out' }).click()
    await ada.page.getByLabel('Your name').waitFor()
    await tab.page.getByLabel('Your name').waitFor()
    await ada.page.reload()
    await ada.page.getByLabel('Your name').waitFor()
  })

  it('asks for a name again when the service keeps refusing', async () => {
    const ada = await arrives('Ada')
    const refused = 'x'.repeat(65)
    await ada.page.evaluate((name) => sessionStorage.setItem('hookwire.chat.name', name), refused)
    await ada.page.reload()
    await ada.page.getByRole('alert').getByText('refused the connection').waitFor()
    await ada.screenshot('desktop-light-refused')
    expect(await ada.barriers()).toEqual([])
    await ada.signIn()
  })

  it('says at once what is wrong with a name', async () => {
    const eve = await Person.arrive(browser, service.url, 'Eve')
    people.push(eve)
    await eve.page.getByRole('button', { name: 'Enter the chat' }).click()
    await eve.page.getByRole('alert').getByText('Enter a name.').waitFor()
    await eve.page.getByLabel('Your name').fill('x'.repeat(65))
    await eve.page.getByRole('button', { name: 'Enter the chat' }).click()
    await eve.page.getByRole('alert').getByText('at most 64').waitFor()
  })
})

describe.runIf(process.env.HOOKWIRE_BIN !== undefined || process.env.HOOKWIRE_CHAT_URL === undefined)('when the service dies', () => {
  it('the pages say so, come back by themselves, and nothing is missing or doubled', async () => {
    const ada = await arrives('Ada')
    const bob = await arrives('Bob')
    const title = `Storm ${counted}`
    await makesGroup(ada, title, bob)
    await bob.open(title)
    await bob.page.getByRole('button', { name: 'Join the group' }).click()
    await bob.field.waitFor()
    const written: { by: Person; text: string }[] = []
    const write = async (by: Person, text: string) => {
      written.push({ by, text })
      await by.say(text)
    }
    await write(ada, 'Before')
    await bob.sees('Before')

    for (const round of [1, 2, 3]) {
      await write(ada, `Ada, ${round}, as the service dies`)
      await service.kill()
      await ada.page.locator('.banner').waitFor()
      await write(ada, `Ada, ${round}, while it is dead`)
      await write(bob, `Bob, ${round}, while it is dead`)
      if (round === 1) {
        await ada.screenshot('desktop-light-reconnecting')
        expect(await ada.barriers()).toEqual([])
      }
      await service.restart()
      await Promise.all([ada.connected(), bob.connected()])
      await write(bob, `Bob, ${round}, afterwards`)
      await Promise.all([ada, bob].flatMap((person) => written.map(({ text }) => person.sees(text))))
    }

    const [atAda, atBob] = await Promise.all([ada.texts(), bob.texts()])
    expect(atAda).toEqual(atBob)
    expect([...atAda].sort()).toEqual(written.map(({ text }) => text).sort())
    for (const person of [ada, bob]) {
      const own = written.filter(({ by }) => by === person).map(({ text }) => text)
      expect(atAda.filter((text) => own.includes(text)), 'in the order of writing').toEqual(own)
    }

    const late = await anotherTab(ada)
    await late.open(title)
    await late.sees('Before')
    expect(await late.texts()).toEqual(atAda)
    expect(await ada.page.getByRole('status').filter({ hasText: 'Connected again.' }).count()).toBe(1)
  })
})
