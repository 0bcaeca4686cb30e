/** Pictures and files on messages: brought, shown, saved, refused, in real browsers against the real service. */

import { readFile } from 'node:fs/promises'
import type { Browser } from 'playwright-core'
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { PHONE, Person, launch } from './people'
import { Service } from './service'

/** One more than a file can have, in bytes. */
const TOO_LARGE = 10 * 1024 * 1024 + 1

let service: Service
let browser: Browser
let people: Person[] = []

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

async function arrives(name: string, options?: Parameters<typeof Person.arrive>[3]): Promise<Person> {
  const person = await Person.arrive(browser, service.url, name, options)
  people.push(person)
  await person.signIn()
  return person
}

interface Picked {
  readonly name: string
  readonly mimeType: string
  readonly buffer: Buffer
}

const file = (name: string, content: string | Buffer, mimeType = 'application/octet-stream'): Picked => ({ name, mimeType, buffer: Buffer.from(content) })

async function picks({ page }: Person, ...files: Picked[]): Promise<void> {
  const choosing = page.waitForEvent('filechooser')
  await page.getByRole('button', { name: 'Attach files' }).click()
  await (await choosing).setFiles(files)
}

const uploads = ({ page }: Person) => page.getByRole('list', { name: 'Files for this message' }).getByRole('listitem')

/** Waits until every picked file was brought. */
async function brought(person: Person, count: number): Promise<void> {
  await person.until(`${count} files were brought`, async () => (await person.page.locator('.uploads > .ready').count()) === count)
}

/** Returns the width of a shown picture in its own pixels. */
function width(person: Person, name: string): Promise<number> {
  return person.log.getByRole('img', { name }).evaluate((image: HTMLImageElement) => (image.complete ? image.naturalWidth : 0))
}

it('a picture is shown and a file is saved, by everybody who may read the message', async () => {
  const ann = await arrives('Ann')
  const bob = await arrives('Bob', PHONE)
  await bob.open(/Public room/u)
  const picture = await ann.page.screenshot()
  const page = '<script>document.title = "taken over"</script>'
  await picks(ann, file('the room.png', picture, 'image/png'), file('notes & plans.html', page, 'text/html'))
  await brought(ann, 2)
  await ann.screenshot('files-to-send')
  expect(await ann.barriers()).toEqual([])
  await ann.say('This is how it looks')

  for (const person of [ann, bob]) {
    await person.sees('This is how it looks')
    await person.until('the picture is there', async () => 0 < (await width(person, 'the room.png')))
    expect(await width(person, 'the room.png')).toBe(1280)
    expect(await person.barriers()).toEqual([])
  }
  expect(await uploads(ann).count()).toBe(0)
  await ann.screenshot('files-desktop')
  await bob.screenshot('files-phone')

  const saving = bob.page.waitForEvent('download')
  await bob.log.getByRole('link', { name: 'notes & plans.html' }).click()
  const saved = await saving
  expect(saved.suggestedFilename()).toBe('notes & plans.html')
  expect(await readFile(await saved.path(), 'utf8')).toBe(page)

  const showing = bob.context.waitForEvent('page')
  await bob.log.getByRole('link', { name: 'the room.png' }).click()
  const shown = await showing
  await shown.waitForLoadState()
  expect(await shown.evaluate(() => document.contentType)).toBe('image/png')
  await shown.close()

  // It is there for whoever comes later, too, and with a picture alone.
  await picks(ann, file('alone.png', picture, 'image/png'))
  await brought(ann, 1)
  await ann.page.getByRole('button', { name: 'Send' }).click()
  await bob.until('the second picture is there', async () => 0 < (await bob.log.getByRole('img', { name: 'alone.png' }).count()))
  await bob.page.reload()
  await bob.shows(/Public room/u)
  await bob.until('the second picture is there again', async () => 0 < (await width(bob, 'alone.png')))
})

it('what cannot be taken says why, and the rest is sent', async () => {
  const cleo = await arrives('Cleo')
  await picks(cleo, file('film.mov', Buffer.alloc(TOO_LARGE)), file('nothing.txt', ''), file('good.txt', 'good'))
  await brought(cleo, 1)
  await cleo.page.getByText('A file can have at most 10 MiB.').waitFor()
  await cleo.page.getByText('An empty file cannot be attached.').waitFor()
  await cleo.screenshot('files-refused')
  expect(await cleo.page.getByRole('button', { name: 'Send' }).isDisabled()).toBe(true)
  for (const name of ['film.mov', 'nothing.txt']) {
    await cleo.page.getByRole('button', { name: `Remove ${name}` }).click()
  }
  await cleo.say('The rest')
  await cleo.sees('The rest')
  await cleo.log.getByRole('link', { name: 'good.txt' }).waitFor()

  await picks(cleo, ...Array.from({ length: 11 }, (_, n) => file(`${n}.txt`, 'x')))
  await cleo.page.getByText('A message can have at most 10 files.').waitFor()
  await brought(cleo, 10)
  await cleo.field.press('Enter')
  await cleo.log.getByRole('link', { name: '9.txt' }).waitFor()
  expect(await cleo.log.getByRole('link', { name: '10.txt' }).count()).toBe(0)
})
