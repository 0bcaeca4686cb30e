/**
 * Messages that are on their way: kept until they are seen in the history, sent again with the same key after a break.
 *
 * Per conversation one message is under way at a time, so they arrive in the order in which they were written.
 */

import { backoffMs } from './backoff'
import { ConnectionLost, RequestError } from './connection'
import { UNSENT_MESSAGES_MAX } from './limits'
import { type Body, type Message, type Receipt, parseMessage } from './wire'

/** Tries of one message that the functions could not take at the moment. After that a person decides. */
export const TRIES_MAX = 5

export interface Unsent {
  readonly key: string
  readonly conversation: string
  readonly text: string
  readonly attachments: readonly Receipt[]
  /** When it was written, in milliseconds since the epoch. */
  readonly time: number
  /** `stored`: acknowledged, and shown here until the history shows it. */
  readonly state: 'waiting' | 'sending' | 'stored' | 'failed'
  /** Why it failed, as a sentence. */
  readonly reason?: string
  /** Its place in the history, once stored. */
  readonly seq?: number
}

/** Keeps one text over a reload of the page. */
export interface Keep {
  load(): string | null
  save(text: string): void
}

interface Ports {
  request(op: string, fields: Body): Promise<Body>
  /** A stored message, as answered. */
  stored(message: Message): void
  chance(): number
  newKey(): string
  keep: Keep
  changed(): void
}

export class Outbox {
  #entries: readonly Unsent[]
  #byConversation = new Map<string, readonly Unsent[]>()
  #tries = new Map<string, number>()
  #timers = new Map<string, ReturnType<typeof setTimeout>>()

  constructor(private readonly ports: Ports) {
    this.#entries = parseKept(ports.keep.load())
  }

  /** What is under way in a conversation, oldest first. A new array only after a change. */
  of(conversation: string): readonly Unsent[] {
    let entries = this.#byConversation.get(conversation)
    if (!entries) {
      entries = this.#entries.filter((entry) => entry.conversation === conversation)
      this.#byConversation.set(conversation, entries)
    }
    return entries
  }

  /** Takes a message. Returns false when too many are waiting already. */
  add(conversation: string, text: string, attachments: readonly Receipt[] = []): boolean {
    if (UNSENT_MESSAGES_MAX <= this.#entries.length) {
      return false
    }
    const entry: Unsent = { key: this.ports.newKey(), conversation, text, attachments, time: Date.now(), state: 'waiting' }
    this.#become([...this.#entries, entry])
    this.#pump(conversation)
    return true
  }

  /** Sends what waits: there is a connection. */
  flush(): void {
    for (const conversation of new Set(this.#entries.map((entry) => entry.conversation))) {
      this.#pump(conversation)
    }
  }

  /** A person wants a failed message to be sent again. */
  resend(key: string): void {
    const entry = this.#entries.find((each) => each.key === key)
    if (entry?.state === 'failed') {
      this.#tries.delete(key)
      this.#update(key, { state: 'waiting' })
      this.#pump(entry.conversation)
    }
  }

  /** A person gives up a failed message. */
  discard(key: string): void {
    this.#become(this.#entries.filter((entry) => !(entry.key === key && entry.state === 'failed')))
  }

  /** The history shows the messages with these keys: they are no longer on their way. */
  arrived(keys: ReadonlySet<string>): void {
    if (this.#entries.some((entry) => keys.has(entry.key))) {
      this.#become(this.#entries.filter((entry) => !keys.has(entry.key)))
    }
  }

  /** The history of a conversation is complete up to `seq`, or is not kept (infinity). */
  completed(conversation: string, seq: number): void {
    const done = (entry: Unsent) => entry.conversation === conversation && (entry.seq ?? Infinity) <= seq && entry.state === 'stored'
    if (this.#entries.some(done)) {
      this.#become(this.#entries.filter((entry) => !done(entry)))
    }
  }

  /** Stops every timer. */
  stop(): void {
    for (const timer of this.#timers.values()) {
      clearTimeout(timer)
    }
    this.#timers.clear()
  }

  #pump(conversation: string): void {
    const here = this.of(conversation)
    const next = here.find((entry) => entry.state === 'waiting')
    if (next && !here.some((entry) => entry.state === 'sending') && !this.#timers.has(conversation)) {
      void this.#send(next)
    }
  }

  async #send({ key, conversation, text, attachments }: Unsent): Promise<void> {
    this.#update(key, { state: 'sending' })
    try {
      const receipts = attachments.length === 0 ? {} : { attachments: attachments.map(({ receipt }) => receipt) }
      const { message: sent } = await this.ports.request('send', { conversation, key, text, ...receipts })
      const message = parseMessage(sent)
      this.#tries.delete(key)
      this.#update(key, { state: 'stored', seq: message.seq })
      this.ports.stored(message)
    } catch (error) {
      this.#failed(key, conversation, error)
      if (error instanceof ConnectionLost) {
        return // The next hello flushes.
      }
    }
    this.#pump(conversation)
  }

  #failed(key: string, conversation: string, error: unknown): void {
    if (error instanceof ConnectionLost) {
      this.#update(key, { state: 'waiting' })
      return
    }
    const tries = (this.#tries.get(key) ?? 0) + 1
    this.#tries.set(key, tries)
    const temporary = error instanceof RequestError && (error.code === 'unavailable' || error.code === 'conflict')
    if (temporary && tries < TRIES_MAX) {
      this.#update(key, { state: 'waiting' })
      const timer = setTimeout(() => {
        this.#timers.delete(conversation)
        this.#pump(conversation)
      }, backoffMs(tries - 1, this.ports.chance()))
      this.#timers.set(conversation, timer)
      return
    }
    this.#tries.delete(key)
    const reason = error instanceof RequestError ? error.message : 'The answer of the service was not understood.'
    this.#update(key, { state: 'failed', reason })
  }

  #update(key: string, change: Partial<Unsent>): void {
    this.#become(this.#entries.map((entry) => (entry.key === key ? { ...entry, ...change } : entry)))
  }

  #become(entries: readonly Unsent[]): void {
    this.#entries = entries
    this.#byConversation.clear()
    this.ports.keep.save(JSON.stringify(entries.filter((entry) => entry.state !== 'stored')))
    this.ports.changed()
  }
}

/** What was kept over a reload. Anything else than a list of our own entries counts as nothing. */
function parseKept(text: string | null): Unsent[] {
  let kept: unknown
  try {
    kept = JSON.parse(text ?? '[]')
  } catch {
    return []
  }
  const entries = Array.isArray(kept) ? kept.slice(0, UNSENT_MESSAGES_MAX) : []
  return entries.flatMap((value: Partial<Unsent> | null) => {
    if (
      typeof value?.key !== 'string' ||
      typeof value.conversation !== 'string' ||
      typeof value.text !== 'string' ||
      typeof value.time !== 'number'
    ) {
      return []
    }
    const { key, conversation, text, time } = value
    const attachments = Array.isArray(value.attachments) ? value.attachments.filter(isReceipt) : []
    const failed = value.state === 'failed' && typeof value.reason === 'string' ? value.reason : undefined
    return [{ key, conversation, text, attachments, time, ...(failed === undefined ? { state: 'waiting' } : { state: 'failed', reason: failed }) } as const]
  })
}

function isReceipt(value: Partial<Receipt> | null): value is Receipt {
  return [value?.name, value?.type, value?.receipt].every((text) => typeof text === 'string') && typeof value?.size === 'number'
}
