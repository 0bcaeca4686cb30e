/** From totals that are looked at now and then to rates over time. */

import type { Overview } from '../api/overview'

/** How often the service is asked, in milliseconds. */
export const POLL_MS = 2_000

/** Samples that are kept: five minutes. */
export const SAMPLES_MAX = 150

/** What is drawn of one moment. Rates are per second, and absent in the first sample after a start of the service. */
export interface Sample {
  /** Milliseconds since 1970 by the service's clock. */
  readonly time: number
  readonly preview: number
  readonly webPubSub: number
  readonly recovering: number
  readonly messagesIn: number | undefined
  readonly messagesOut: number | undefined
  readonly bytesIn: number | undefined
  readonly bytesOut: number | undefined
  readonly calls: number | undefined
  readonly failures: number | undefined
  /** How much of the time each shard worked, from 0 to 1. */
  readonly busy: readonly (number | undefined)[]
}

/** Returns the samples with one more. `before` is what the last one was made of. */
export function withSample(samples: readonly Sample[], before: Overview | undefined, now: Overview): readonly Sample[] {
  const restarted = before !== undefined && before.startedAt !== now.startedAt
  const last = restarted ? undefined : before
  if (last !== undefined && now.time <= last.time) {
    return samples
  }
  const kept = restarted ? [] : samples.slice(-(SAMPLES_MAX - 1))
  return [...kept, sample(last, now)]
}

function sample(last: Overview | undefined, now: Overview): Sample {
  const rate = (total: (of: Overview) => number) =>
    last === undefined ? undefined : Math.max(0, ((total(now) - total(last)) * 1_000) / (now.time - last.time))
  return {
    time: now.time,
    preview: now.connections.preview,
    webPubSub: now.connections.webPubSub,
    recovering: now.connections.recovering,
    messagesIn: rate((of) => of.messagesIn),
    messagesOut: rate((of) => of.messagesOut),
    bytesIn: rate((of) => of.bytesIn),
    bytesOut: rate((of) => of.bytesOut),
    calls: rate((of) => of.upstream.calls),
    failures: rate((of) => of.upstream.failures),
    busy: now.shards.map((_, index) => {
      const busy = rate((of) => of.shards[index]?.busySeconds ?? 0)
      return busy === undefined ? undefined : Math.min(1, busy)
    }),
  }
}
