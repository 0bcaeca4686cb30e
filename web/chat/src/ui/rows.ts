/** What a message log shows, line by line: days, the mark of the first unread message, messages in groups of one sender. */

import type { Unsent } from '../client/outbox'
import type { Message } from '../client/wire'

/** Milliseconds within which messages of one user stand under one name. */
const GROUP_MS = 5 * 60_000

export type Row =
  | { readonly kind: 'day'; readonly key: string; readonly day: Date }
  | { readonly kind: 'unread'; readonly key: string }
  /** `head`: shows name and picture. */
  | { readonly kind: 'message'; readonly key: string; readonly message: Message; readonly head: boolean }
  | { readonly kind: 'unsent'; readonly key: string; readonly unsent: Unsent; readonly head: boolean }

/**
 * Returns the rows.
 *
 * @param unreadAfter the last sequence number that was read when the conversation was opened; undefined for no mark
 */
export function rows(messages: readonly Message[], unsent: readonly Unsent[], user: string, unreadAfter: number | undefined): Row[] {
  const made: Row[] = []
  let day = ''
  let sender = ''
  let at = -Infinity
  let marked = unreadAfter === undefined

  function add(from: string, time: number, make: (head: boolean) => Row): void {
    const date = new Date(time)
    const today = date.toDateString()
    if (today !== day) {
      day = today
      sender = ''
      made.push({ kind: 'day', key: `day ${today}`, day: date })
    }
    made.push(make(from !== sender || GROUP_MS < time - at))
    sender = from
    at = time
  }

  for (const message of messages) {
    const before = made.length
    add(message.user, Date.parse(message.time), (head) => {
      // A key of one's own is the same before and after the message is stored, so the row stays.
      const key = message.user === user ? `key ${message.key}` : `seq ${message.seq}`
      return { kind: 'message', key, message, head: head || isFirstUnread(message) }
    })
    if (isFirstUnread(message)) {
      marked = true
      made.splice(made[before]?.kind === 'day' ? before + 1 : before, 0, { kind: 'unread', key: 'unread' })
    }
  }
  for (const entry of unsent) {
    add(user, entry.time, (head) => ({ kind: 'unsent', key: `key ${entry.key}`, unsent: entry, head }))
  }
  return made

  function isFirstUnread(message: Message): boolean {
    return !marked && unreadAfter !== undefined && unreadAfter < message.seq && message.user !== user
  }
}

const TIME = new Intl.DateTimeFormat(undefined, { hour: 'numeric', minute: '2-digit' })
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })
const DAY = new Intl.DateTimeFormat(undefined, { weekday: 'long', month: 'long', day: 'numeric' })
const DAY_AND_YEAR = new Intl.DateTimeFormat(undefined, { weekday: 'long', year: 'numeric', month: 'long', day: 'numeric' })

/** Returns the time of day, as people here write it. */
export function timeText(time: Date): string {
  return TIME.format(time)
}

/** Returns date and time to the second. */
export function exactText(time: Date): string {
  return EXACT.format(time)
}

/** Returns “Today”, “Yesterday”, or the date, with the year when it is not this one. */
export function dayText(day: Date, today: Date): string {
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1)
  if (day.toDateString() === today.toDateString()) {
    return 'Today'
  }
  if (day.toDateString() === yesterday.toDateString()) {
    return 'Yesterday'
  }
  return (day.getFullYear() === today.getFullYear() ? DAY : DAY_AND_YEAR).format(day)
}
