/** Follows the event log: the newest entries first of all, then each as it comes, again after every break. */

import { type EventEntry, type EventFilter, fetchEvents, openEvents, readEvent } from '../api/events'
import { sentence } from '../api/words'
import { readEvents } from './sse'

/** Entries that are shown at the beginning. */
export const FIRST_ENTRIES = 200

/** Milliseconds until the first and between the last tries to come back. */
const RETRY_MS_MIN = 500
const RETRY_MS_MAX = 15_000

export interface FollowListener {
  /** These are the newest of all; nothing is known of what was told before. */
  begin(entries: readonly EventEntry[]): void
  /** One more. */
  entry(entry: EventEntry): void
  /** So many entries were not told, since the page was too slow or away for too long. */
  missed(count: number): void
  /** `undefined`: the stream is open; otherwise why it is not. */
  state(fault: string | undefined): void
}

/** Runs until `signal` aborts. */
export async function follow(filter: EventFilter, listener: FollowListener, signal: AbortSignal): Promise<void> {
  let last: number | undefined
  let pause = RETRY_MS_MIN
  while (!signal.aborted) {
    try {
      if (last === undefined) {
        const entries = await fetchEvents(filter, undefined, FIRST_ENTRIES)
        if (signal.aborted) {
          return
        }
        listener.begin(entries)
        last = entries.at(-1)?.id ?? 0
      }
      const stream = await openEvents(filter, last, signal)
      listener.state(undefined)
      pause = RETRY_MS_MIN
      await readEvents(stream, ({ type, data }) => {
        if (signal.aborted) {
          return
        }
        if (type === 'missed') {
          listener.missed(Number(data))
        } else if (type === 'message') {
          const entry = readEvent(JSON.parse(data))
          last = entry.id
          listener.entry(entry)
        }
      })
    } catch (error) {
      if (signal.aborted) {
        return
      }
      listener.state(sentence(error))
      // The service may have been started anew, and count from the beginning.
      last = undefined
    }
    await sleep(pause, signal)
    pause = Math.min(2 * pause, RETRY_MS_MAX)
  }
}

/** Waits, or until `signal` aborts. */
export function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, milliseconds)
    function end(): void {
      clearTimeout(timer)
      signal.removeEventListener('abort', end)
      resolve()
    }
    signal.addEventListener('abort', end)
  })
}
