/** The event log: what became of the latest upstream calls, and who was refused why. */

import { call } from './call'
import { type Properties, list, number, object, optional, text } from './reading'

export interface EventEntry {
  readonly id: number
  readonly time: string
  readonly hub: string | undefined
  readonly dialect: string | undefined
  readonly connectionId: string | undefined
  readonly userId: string | undefined
  readonly kind: string
  readonly event: string
  readonly url: string | undefined
  readonly status: number | undefined
  readonly durationMs: number | undefined
  readonly attempts: number
  readonly ok: boolean
  readonly verdict: string
  readonly reason: string | undefined
}

export interface EventFilter {
  /** Empty: all hubs. */
  readonly hub: string
  readonly failed: boolean
}

/** Returns up to `limit` entries that are older than `before`, the newest last. */
export async function fetchEvents(filter: EventFilter, before: number | undefined, limit: number): Promise<EventEntry[]> {
  const answer = await call('GET', '/admin/v1/events', { query: { ...asQuery(filter), before, limit } })
  return list(object(await answer.json(), 'the answer').items, 'items').map(readEvent)
}

/** Opens the stream of entries that follow `after`. */
export function openEvents(filter: EventFilter, after: number | undefined, signal: AbortSignal): Promise<Response> {
  return call('GET', '/admin/v1/events/live', { query: { ...asQuery(filter), after }, signal })
}

function asQuery({ hub, failed }: EventFilter) {
  return { hub: hub === '' ? undefined : hub, failed: failed ? true : undefined }
}

export function readEvent(value: unknown): EventEntry {
  const entry: Properties = object(value, 'an event')
  const words = (name: string) => optional(text, entry[name], name)
  return {
    id: number(entry.id, 'id'),
    time: text(entry.time, 'time'),
    hub: words('hub'),
    dialect: words('dialect'),
    connectionId: words('connectionId'),
    userId: words('userId'),
    kind: text(entry.kind, 'kind'),
    event: text(entry.event, 'event'),
    url: words('url'),
    status: optional(number, entry.status, 'status'),
    durationMs: optional(number, entry.durationMs, 'durationMs'),
    attempts: optional(number, entry.attempts, 'attempts') ?? 1,
    ok: entry.ok === true,
    verdict: text(entry.verdict, 'verdict'),
    reason: words('reason'),
  }
}
