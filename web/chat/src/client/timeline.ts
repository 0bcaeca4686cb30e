/**
 * The messages of one conversation, by sequence number.
 *
 * Invariant: `messages` is everything that exists from `from` to `to`, ascending, each once. What arrives ahead of a gap
 * waits in `early` and is not shown before the gap is filled.
 */

import { EARLY_MESSAGES_MAX } from './limits'
import type { Message, Page } from './wire'

export class Timeline {
  #messages: readonly Message[] = []
  #early = new Map<number, Message>()
  #from = 1
  #to = 0
  #loaded = false

  /** What the newest page says. Only the first one counts: later history is asked for by `after`. */
  applyLatest(page: Page): void {
    if (this.#loaded) {
      return
    }
    this.#loaded = true
    this.#messages = page.messages
    this.#from = page.more ? (page.messages[0]?.seq ?? 1) : 1
    this.#to = page.messages.at(-1)?.seq ?? 0
    this.#absorb()
  }

  /** What the page before `before` says. A page that no longer fits is ignored. */
  applyOlder(before: number, page: Page): void {
    if (!this.#loaded || before !== this.#from) {
      return
    }
    const older = page.messages.filter((message) => message.seq < before)
    this.#messages = [...older, ...this.#messages]
    this.#from = page.more ? (older[0]?.seq ?? 1) : 1
  }

  /** What the page after `after` says: the next messages, with nothing between them. */
  applyNewer(after: number, page: Page): void {
    if (!this.#loaded || this.#to < after) {
      return
    }
    const newer = page.messages.filter((message) => this.#to < message.seq)
    if (0 < newer.length) {
      this.#messages = [...this.#messages, ...newer]
      this.#to = newer.at(-1)?.seq ?? this.#to
    }
    this.#absorb()
  }

  /** A single message, pushed or answered. Before the first page it is not kept: that page brings it. */
  receive(message: Message): void {
    if (!this.#loaded) {
      return
    }
    if (this.#early.size < EARLY_MESSAGES_MAX) {
      this.#early.set(message.seq, message)
    }
    this.#absorb()
  }

  /** Shows the newer form of a message that is here already. */
  replace(message: Message): void {
    if (this.#messages.some(({ seq }) => seq === message.seq)) {
      this.#messages = this.#messages.map((each) => (each.seq === message.seq ? message : each))
    }
  }

  /** Drops the oldest messages beyond `max`. */
  trim(max: number): void {
    if (max < this.#messages.length) {
      this.#messages = this.#messages.slice(-max)
      this.#from = this.#messages[0]?.seq ?? this.#from
    }
  }

  /** Everything from `from` to `to`. A new array whenever it changes. */
  get messages(): readonly Message[] {
    return this.#messages
  }

  get loaded(): boolean {
    return this.#loaded
  }

  /** The last sequence number up to which nothing is missing; 0 when there is none. */
  get to(): number {
    return this.#to
  }

  /** The first sequence number known; 1 when history begins here. */
  get from(): number {
    return this.#from
  }

  get olderExist(): boolean {
    return this.#loaded && 1 < this.#from
  }

  /** Whether something arrived ahead of what is missing. */
  get gap(): boolean {
    return 0 < this.#early.size
  }

  #absorb(): void {
    for (const seq of this.#early.keys()) {
      if (seq <= this.#to) {
        this.#early.delete(seq)
      }
    }
    const next: Message[] = []
    for (let message = this.#early.get(this.#to + 1); message; message = this.#early.get(this.#to + 1)) {
      this.#early.delete(message.seq)
      this.#to = message.seq
      next.push(message)
    }
    if (0 < next.length) {
      this.#messages = [...this.#messages, ...next]
    }
  }
}
