import { describe, expect, it } from 'vitest'
import { seeded } from './testing'
import { Timeline } from './timeline'
import type { Message, Page } from './wire'

function message(seq: number): Message {
  return { id: `m${seq}`, conversation: 'public', seq, user: 'ada', text: `${seq}`, time: '2026-01-01T00:00:00Z', key: `k${seq}`, attachments: [] }
}

function page(from: number, to: number, more: boolean): Page {
  return { messages: Array.from({ length: to - from + 1 }, (_, i) => message(from + i)), more }
}

function seqs(timeline: Timeline): number[] {
  return timeline.messages.map(({ seq }) => seq)
}

describe('a timeline', () => {
  it('shows a message only once, however often it comes', () => {
    const timeline = new Timeline()
    timeline.applyLatest(page(1, 2, false))
    timeline.receive(message(3))
    timeline.receive(message(3))
    timeline.receive(message(1))
    timeline.applyNewer(2, page(3, 3, false))
    expect(seqs(timeline)).toEqual([1, 2, 3])
  })

  it('holds back what comes ahead of a gap until the gap is filled', () => {
    const timeline = new Timeline()
    timeline.applyLatest(page(1, 2, false))
    timeline.receive(message(5))
    timeline.receive(message(4))
    expect(seqs(timeline)).toEqual([1, 2])
    expect(timeline.gap).toBe(true)
    timeline.receive(message(3))
    expect(seqs(timeline)).toEqual([1, 2, 3, 4, 5])
    expect(timeline.gap).toBe(false)
  })

  it('accepts that a number does not exist when the history says so', () => {
    const timeline = new Timeline()
    timeline.applyLatest(page(1, 2, false))
    timeline.receive(message(4))
    timeline.applyNewer(2, { messages: [message(4)], more: false })
    expect(seqs(timeline)).toEqual([1, 2, 4])
    expect(timeline.gap).toBe(false)
  })

  it('pages back to the beginning and ignores a page that no longer fits', () => {
    const timeline = new Timeline()
    timeline.applyLatest(page(7, 9, true))
    expect(timeline.olderExist).toBe(true)
    timeline.applyOlder(7, page(4, 6, true))
    timeline.applyOlder(7, page(4, 6, true))
    timeline.applyOlder(4, page(1, 3, false))
    expect(seqs(timeline)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(timeline.olderExist).toBe(false)
  })

  it('can be paged back again after the oldest were dropped', () => {
    const timeline = new Timeline()
    timeline.applyLatest(page(1, 9, false))
    timeline.trim(4)
    expect(seqs(timeline)).toEqual([6, 7, 8, 9])
    timeline.applyOlder(6, page(1, 5, false))
    expect(seqs(timeline)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  it('begins with an empty conversation', () => {
    const timeline = new Timeline()
    timeline.applyLatest({ messages: [], more: false })
    expect(timeline.loaded).toBe(true)
    timeline.receive(message(1))
    expect(seqs(timeline)).toEqual([1])
  })

  it('is a whole run of the history after any order of pushes and pages', () => {
    for (let seed = 1; seed <= 300; seed += 1) {
      const chance = seeded(seed)
      const below = (n: number) => Math.floor(chance() * n)
      const timeline = new Timeline()
      let exists = below(30)
      timeline.applyLatest(exists === 0 ? page(1, 0, false) : page(Math.max(1, exists - 4), exists, 5 < exists))
      for (let step = 0; step < 60; step += 1) {
        exists += below(3)
        switch (below(4)) {
          case 0:
            timeline.receive(message(1 + below(exists + 1)))
            exists = Math.max(exists, timeline.to)
            break
          case 1: {
            const after = Math.max(0, timeline.to - below(2))
            timeline.applyNewer(after, page(after + 1, Math.min(exists, after + 4), after + 4 < exists))
            break
          }
          case 2: {
            const before = timeline.from - below(2)
            const first = Math.max(1, before - 4)
            timeline.applyOlder(before, page(first, before - 1, 1 < first))
            break
          }
          default:
            timeline.trim(10)
        }
        const shown = seqs(timeline)
        const whole = Array.from({ length: Math.max(0, timeline.to - timeline.from + 1) }, (_, i) => timeline.from + i)
        expect(shown, `seed ${seed}, step ${step}`).toEqual(whole)
      }
    }
  })
})
