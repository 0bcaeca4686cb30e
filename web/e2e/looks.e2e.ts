/** What a newcomer sees, on a desktop and on phones, light and dark: accessible, nothing cut off; screenshots to look at. */

import type { Browser, BrowserContextOptions } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DESKTOP, PHONE, Person, SMALL_PHONE, launch } from './people'
import { Service } from './service'

let service: Service
let browser: Browser
let linus: Person

/** What Linus writes to Ada before each look, so that something is unread. */
const NEWS = ['It is about case 5.12.', 'And 5.13.', 'Found it: the mask of an empty frame.', 'Fixed.', 'All 517 pass.', 'See you at lunch!']

beforeAll(async () => {
  service = await Service.start()
  browser = await launch()
  await furnish()
})
afterAll(async () => {
  await browser?.close()
  await service?.stop()
})

/** Fills the rooms with a believable day. */
async function furnish(): Promise<void> {
  const [ada, grace, other] = await Promise.all(
    ['Ada Lovelace', 'Grace Hopper', 'Linus'].map(async (name) => {
      const person = await Person.arrive(browser, service.url, name)
      await person.signIn()
      return person
    }),
  ) as [Person, Person, Person]
  linus = other
  const talk: [Person, string][] = [
    [grace, 'Good morning! The new gateway has been up all night. No restarts, no dropped connections.'],
    [linus, 'Nice. How many clients?'],
    [grace, 'A little over eighteen thousand, all of them idle in the early hours.'],
    [grace, 'The functions slept through it: not a single call between two and five.'],
    [ada, 'That is exactly what I hoped to hear. Could you write down how you measured it?\n\nThe next person will want to repeat it.'],
    [linus, 'The frame format is RFC 6455, by the way: https://www.rfc-editor.org/rfc/rfc6455 (section 5.4 is the one about fragments).'],
    [ada, 'Thank you, I will read it over lunch.'],
  ]
  for (const [person, text] of talk) {
    await person.say(text)
    await Promise.all([ada, grace, linus].map((each) => each.sees(text)))
  }
  await ada.page.getByRole('button', { name: 'New group' }).click()
  await ada.page.getByLabel('Name of the group').fill('Launch plans')
  await ada.page.getByRole('checkbox', { name: 'Grace Hopper' }).check()
  await ada.screenshot('desktop-light-new-group')
  await ada.page.getByRole('button', { name: 'Create group and invite 1' }).click()
  await ada.shows('Launch plans')
  await ada.say('Shall we open it to everybody next week?')
  await grace.conversation(/Launch plans/u).waitFor()
  await ada.page.getByRole('button', { name: /^Linus\s*, write a direct message/u }).click()
  await ada.shows('Linus')
  await ada.say('Do you have a minute for the fragment tests?')
  await linus.conversation(/Ada Lovelace/u).waitFor()
  await linus.open(/Ada Lovelace/u)
  await linus.say('Sure, call me.')
  await ada.sees('Sure, call me.')
  await linus.open(/Public room/u)
  await linus.say('Fragments: all green now.')
  await linus.say('Including the ones with control frames in between.')
  await ada.until('two messages are unread', async () => (await ada.conversation(/2 unread/u).count()) === 1)
  await linus.open(/Ada Lovelace/u)
  await grace.open(/Launch plans/u)
  await grace.page.getByRole('button', { name: 'Join the group' }).waitFor()
  await grace.screenshot('desktop-light-invitation')
  expect(await grace.barriers(), 'invitation').toEqual([])
  await ada.leave()
}

const SCREENS: [string, BrowserContextOptions][] = [
  ['desktop', DESKTOP],
  ['phone', PHONE],
  ['small-phone', SMALL_PHONE],
]

describe.each(SCREENS)('on a %s', (screen, options) => {
  it.each(['light', 'dark'] as const)('in %s colours everything is readable and reachable', async (colorScheme) => {
    const guest = await Person.arrive(browser, service.url, `Guest ${screen} ${colorScheme}`, { ...options, colorScheme })
    const look = async (what: string) => {
      await guest.screenshot(`${screen}-${colorScheme}-${what}`)
      expect(await guest.barriers(), what).toEqual([])
      const cut = await guest.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      expect(cut, `${what} is wider than the screen`).toBe(0)
    }
    await guest.page.getByLabel('Your name').waitFor()
    await look('sign-in')
    await guest.leave()
    await linus.say(NEWS.shift() ?? 'Hm.')

    const ada = await Person.arrive(browser, service.url, 'Ada Lovelace', { ...options, colorScheme })
    const adaLook = async (what: string) => {
      await ada.screenshot(`${screen}-${colorScheme}-${what}`)
      expect(await ada.barriers(), what).toEqual([])
      const cut = await ada.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
      expect(cut, `${what} is wider than the screen`).toBe(0)
    }
    await ada.signIn()
    if (screen !== 'desktop') {
      await adaLook('list')
      await ada.open(/Public room/u)
    }
    await ada.sees('Thank you, I will read it over lunch.')
    await adaLook('public')
    if (screen !== 'desktop') {
      await ada.page.getByRole('button', { name: 'Back to the conversations' }).click()
    }
    await ada.open(/Launch plans/u)
    await ada.page.getByRole('button', { name: 'Members' }).click()
    await ada.page.getByRole('dialog', { name: 'Members' }).waitFor()
    await adaLook('members')
    await ada.page.keyboard.press('Escape')
    if (screen !== 'desktop') {
      await ada.page.getByRole('button', { name: 'Back to the conversations' }).click()
    }
    await ada.open(/Linus/u)
    await ada.sees('Sure, call me.')
    await adaLook('direct')
    if (screen !== 'desktop') {
      await ada.page.getByRole('button', { name: 'Back to the conversations' }).click()
    }
    await ada.page.getByRole('button', { name: 'Settings' }).click()
    await adaLook('settings')
    expect([...ada.complaints, ...guest.complaints]).toEqual([])
    expect([...ada.external, ...guest.external]).toEqual([])
    await ada.leave()
  })
})
