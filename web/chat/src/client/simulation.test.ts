/**
 * Pages against a service whose network does everything a network does. Each run is made from a seed, which a failure
 * names. The model is the service's own log.
 */

import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import type { Chat } from './chat'
import { CALM, FakeService, type Weather, seeded } from './testing'

const ROOMS = ['public', 'group~1', 'direct~ada~bob']
const STEPS = 120

beforeEach(() => {
  vi.spyOn(console, 'warn').mockImplementation(() => undefined)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

function storm(chance: () => number): Weather {
  return {
    latencyMs: () => 1 + Math.floor(chance() * 120),
    copies: () => (chance() < 0.05 ? 0 : chance() < 0.1 ? 2 : 1),
    refuseHandshake: () => chance() < 0.15,
    endpointDown: () => chance() < 0.1,
    unavailable: () => (chance() < 0.03 ? 'before' : chance() < 0.03 ? 'after' : undefined),
  }
}

/** What is on the screen is one unbroken run of the log at every moment. */
function unbroken(page: Chat, service: FakeService, when: string): void {
  for (const id of ROOMS) {
    const shown = page.feed(id)?.messages ?? []
    const first = shown[0]?.seq ?? 1
    expect(shown, when).toEqual(service.rooms.get(id)?.messages.slice(first - 1, first - 1 + shown.length))
  }
}

it.each(Array.from({ length: 40 }, (_, i) => i + 1))('nothing is missing and nothing comes twice, seed %i', async (seed) => {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T12:00:00Z') })
  const chance = seeded(seed)
  const pick = <T>(from: readonly T[]): T => from[Math.floor(chance() * from.length)] as T
  const service = new FakeService()
  service.room('group~1', 'group', 'Design', ['ada', 'bob'])
  service.room('direct~ada~bob', 'direct', '', ['ada', 'bob'])
  service.weather = storm(chance)
  const pages = ['ada', 'ada', 'bob'].map((user) => service.chat(user, chance))
  const written = new Map<Chat, { id: string; text: string }[]>(pages.map((page) => [page, []]))
  pages.forEach((page) => {
    page.onChange(() => unbroken(page, service, `seed ${seed}`))
    page.start()
    page.select('public')
  })

  for (let step = 0; step < STEPS; step += 1) {
    const page = pick(pages)
    const id = pick(ROOMS)
    const what = chance()
    if (what < 0.35) {
      const text = `${pages.indexOf(page)}.${step}`
      if (page.send(id, text)) {
        written.get(page)?.push({ id, text })
      }
    } else if (what < 0.5) {
      service.post('eve', 'public', `eve ${step}`)
    } else if (what < 0.65) {
      page.select(id)
    } else if (what < 0.75) {
      page.markRead(id, page.feed(id)?.to ?? 0)
    } else if (what < 0.8) {
      page.feed(id)?.loadOlder().catch(() => undefined)
    } else if (what < 0.95) {
      const socket = pick([...service.sockets])
      if (chance() < 0.2) {
        socket?.freeze()
      } else {
        socket?.cut()
      }
    } else {
      page.check()
    }
    await vi.advanceTimersByTimeAsync(Math.floor(chance() * 400))
  }

  service.weather = CALM
  pages.forEach((page) => ROOMS.forEach((id) => page.select(id)))
  await vi.advanceTimersByTimeAsync(180_000)
  for (const page of pages) {
    page.check()
  }
  await vi.advanceTimersByTimeAsync(5_000)
  // A push that is lost behind the last message is found by the next look at the conversation.
  for (const id of ROOMS) {
    service.post(id === 'public' ? 'eve' : 'bob', id, 'the end')
  }
  await vi.advanceTimersByTimeAsync(60_000)

  for (const page of pages) {
    const mine = written.get(page) ?? []
    for (const id of ROOMS) {
      const log = service.rooms.get(id)?.messages ?? []
      expect(page.unsent(id)).toEqual([])
      expect(page.feed(id)?.to, id).toBe(log.length)
      unbroken(page, service, 'at the end')
      const sent = mine.filter((each) => each.id === id).map(({ text }) => text)
      const stored = log.map(({ text }) => text).filter((text) => sent.includes(text))
      expect(stored, `each once and in the order of writing, ${id}`).toEqual(sent)
      while (page.feed(id)?.older === 'more') {
        void page.feed(id)?.loadOlder()
        await vi.advanceTimersByTimeAsync(10)
      }
      expect(page.feed(id)?.messages).toEqual(log)
      page.markRead(id, log.length)
      await vi.advanceTimersByTimeAsync(10)
    }
  }
  for (const page of pages) {
    expect(page.conversations.map((conversation) => page.unread(conversation))).toEqual([0, 0, 0])
    page.stop()
  }
  await vi.advanceTimersByTimeAsync(1_000)
  expect(vi.getTimerCount()).toBe(0)
})
