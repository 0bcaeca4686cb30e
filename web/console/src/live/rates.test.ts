import { describe, expect, it } from 'vitest'
import type { Overview } from '../api/overview'
import { SAMPLES_MAX, type Sample, withSample } from './rates'

function overview(time: number, total: number, startedAt = 'a'): Overview {
  return {
    version: '1', startedAt, time, uptimeSeconds: 1, dialects: [], publicEndpoints: [],
    connections: { preview: 1, webPubSub: 2, recovering: 3 }, hubs: 1,
    messagesIn: total, messagesOut: 2 * total, bytesIn: 3 * total, bytesOut: 4 * total,
    upstream: { calls: 5 * total, failures: 6 * total, inFlight: 0 }, slowConsumers: 0, queueBytes: 0,
    shards: [{ connections: 1, queueBytes: 0, busySeconds: total / 64 }],
  }
}

describe('rates', () => {
  it('are the growth of totals over the time between two looks', () => {
    const first = overview(1_000, 10)
    const second = overview(3_000, 30)
    const samples = withSample(withSample([], undefined, first), first, second)
    expect(samples.map(({ messagesIn }) => messagesIn)).toEqual([undefined, 10])
    expect(samples[1]).toMatchObject({ messagesOut: 20, bytesIn: 30, bytesOut: 40, calls: 50, failures: 60, busy: [0.15625], webPubSub: 2 })
  })

  it('begin anew when the service was started again', () => {
    const before = overview(1_000, 10)
    const samples = withSample(withSample([], undefined, before), before, overview(2_000, 1, 'b'))
    expect(samples).toHaveLength(1)
    expect(samples[0]?.messagesIn).toBeUndefined()
  })

  it('skip a look at the same moment', () => {
    const first = overview(1_000, 10)
    const samples = withSample([], undefined, first)
    expect(withSample(samples, first, overview(1_000, 20))).toBe(samples)
  })

  it('are kept for a limited time', () => {
    let samples: readonly Sample[] = []
    let before: Overview | undefined
    for (let step = 0; step < SAMPLES_MAX + 10; step += 1) {
      const now = overview(1_000 * step, step)
      samples = withSample(samples, before, now)
      before = now
    }
    expect(samples).toHaveLength(SAMPLES_MAX)
    expect(samples.at(-1)?.time).toBe(1_000 * (SAMPLES_MAX + 9))
  })
})
