/**
 * One conversation's history, kept whole: loads the newest page when the conversation is opened, fills what is missing
 * after a break or behind a message that came too early, and pages back on demand.
 */

import { backoffMs } from './backoff'
import { ConnectionLost, RequestError } from './connection'
import { GAP_PAGE_MESSAGES, HISTORY_MESSAGES_MAX, PAGE_MESSAGES, TIMELINE_MESSAGES_MAX } from './limits'
import { Timeline } from './timeline'
import { type Body, type Message, type Page, parsePage } from './wire'

/** Milliseconds that pushes may overtake each other before the missing ones are asked for. */
export const GAP_WAIT_MS = 250

export type Request = (op: string, fields: Body) => Promise<Body>

export class Feed {
  #timeline = new Timeline()
  #wanted = false
  #reading = false
  #stale = false
  #heard = 0
  #running = false
  #failures = 0
  #loadingOlder = false
  #fault: string | undefined
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly conversation: string,
    private readonly request: Request,
    private readonly chance: () => number,
    private readonly changed: () => void,
  ) {}

  get messages(): readonly Message[] {
    return this.#timeline.messages
  }

  get loaded(): boolean {
    return this.#timeline.loaded
  }

  /** The last sequence number up to which nothing is missing. */
  get to(): number {
    return this.#timeline.to
  }

  get loadingOlder(): boolean {
    return this.#loadingOlder
  }

  /** Whether older messages exist, and whether the page keeps so many already that it loads no more. */
  get older(): 'none' | 'more' | 'limit' {
    if (!this.#timeline.olderExist) {
      return 'none'
    }
    return this.messages.length < HISTORY_MESSAGES_MAX ? 'more' : 'limit'
  }

  /** Why history could not be read, as a sentence. */
  get fault(): string | undefined {
    return this.#fault
  }

  /** Somebody looks at this conversation: its history is wanted from now on. */
  want(): void {
    this.#wanted = true
    this.#fault = undefined
    this.#run()
  }

  /** While somebody pages back, old messages are kept beyond the usual number. */
  set reading(reading: boolean) {
    this.#reading = reading
  }

  receive(message: Message): void {
    this.#timeline.receive(message)
    this.#trim()
    this.heard(message.seq)
  }

  /** A sequence number is known to exist. */
  heard(seq: number): void {
    this.#heard = Math.max(this.#heard, seq)
    if (this.#behind && this.#timer === undefined && !this.#running) {
      this.#later(GAP_WAIT_MS)
    }
  }

  /** A new connection: nothing that was pushed meanwhile is known. `check` asks even when nothing seems to be missing. */
  reconnected(check: boolean): void {
    this.#stale ||= check && this.loaded
    this.#failures = 0
    this.#run()
  }

  /** @throws RequestError or ConnectionLost */
  async loadOlder(): Promise<void> {
    if (this.#loadingOlder || this.older !== 'more') {
      return
    }
    this.#loadingOlder = true
    this.changed()
    try {
      const before = this.#timeline.from
      this.#timeline.applyOlder(before, await this.#page({ before, limit: PAGE_MESSAGES }))
    } finally {
      this.#loadingOlder = false
      this.changed()
    }
  }

  /** Reads one message again, for links that are good for a while longer. @throws RequestError or ConnectionLost */
  async renew(seq: number): Promise<void> {
    const { messages } = await this.#page({ after: seq - 1, limit: 1 })
    messages.forEach((message) => this.#timeline.replace(message))
    this.changed()
  }

  /** Stops every timer. */
  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  get #behind(): boolean {
    return this.#timeline.loaded && (this.#timeline.to < this.#heard || this.#timeline.gap)
  }

  /** One step at a time until nothing is missing. */
  #run(): void {
    const due = this.loaded ? this.#behind || this.#stale : this.#wanted
    if (this.#running || !due) {
      return
    }
    this.stop()
    this.#running = true
    this.#step()
      .then(
        (again) => this.#stepped(again),
        (error: unknown) => this.#failed(error),
      )
      .finally(() => this.changed())
  }

  /** Asks for one page. Returns whether to ask for the next one at once. */
  async #step(): Promise<boolean> {
    this.#stale = false
    if (!this.loaded) {
      this.#timeline.applyLatest(await this.#page({ limit: PAGE_MESSAGES }))
      return false
    }
    const after = this.#timeline.to
    const page = await this.#page({ after, limit: GAP_PAGE_MESSAGES })
    this.#timeline.applyNewer(after, page)
    this.#trim()
    return page.more && 0 < page.messages.length
  }

  #stepped(again: boolean): void {
    this.#running = false
    this.#fault = undefined
    if (again || this.#stale) {
      this.#stale ||= again
      this.#failures = 0
      this.#run()
    } else if (this.#behind) {
      // Known to exist but not in the answer: the answer was older than the push.
      this.#later(backoffMs(this.#failures, this.chance()))
      this.#failures += 1
    } else {
      this.#failures = 0
    }
  }

  #failed(error: unknown): void {
    this.#running = false
    if (error instanceof ConnectionLost) {
      this.#stale = true
      return // The next hello asks again.
    }
    if (error instanceof RequestError && (error.code === 'not_found' || error.code === 'forbidden')) {
      this.#fault = error.message
      return
    }
    this.#fault = error instanceof RequestError ? error.message : 'The answer of the service was not understood.'
    this.#stale = true
    this.#later(backoffMs(this.#failures, this.chance()))
    this.#failures += 1
  }

  #later(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#run()
    }, ms)
  }

  async #page(fields: Body): Promise<Page> {
    return parsePage(await this.request('open', { conversation: this.conversation, ...fields }), this.conversation)
  }

  #trim(): void {
    if (!this.#reading && TIMELINE_MESSAGES_MAX < this.messages.length) {
      this.#timeline.trim(TIMELINE_MESSAGES_MAX / 2)
    }
  }
}
