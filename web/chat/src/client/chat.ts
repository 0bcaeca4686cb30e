/**
 * The chat as one user sees it: conversations, people, history, messages on their way. Knows the protocol, nothing of the
 * screen.
 *
 * After every new connection it says hello, asks each loaded conversation for what came after its last known message, and
 * sends again what was not acknowledged.
 */

import { Connection, ConnectionLost, type ConnectionState, type Environment, RequestError } from './connection'
import { Feed } from './feed'
import { type Keep, Outbox, type Unsent } from './outbox'
import { type Bring, type Upload, Uploads } from './uploads'
import { type Body, type Conversation, type Message, type Push, type User, parseConversation, parseHello, parseInvitation } from './wire'

/** Milliseconds without a frame after which the page asks for something, to notice a dead connection. */
export const PROBE_MS = 60_000

/** Milliseconds between looks at the clock for the probe. */
const PROBE_TICK_MS = 15_000

/** Pushes kept while a hello is under way, to be applied again after its answer. More, and hello is said again. */
export const HELLO_PUSHES_MAX = 1_000

/** Milliseconds between two hellos on one connection, said because something unknown was pushed. */
const GREET_AGAIN_MS = 10_000

export const PUBLIC = 'public'

export interface ChatEnvironment extends Environment {
  newKey(): string
  /** Keeps what is not sent yet over a reload. */
  keep: Keep
  bring: Bring
}

export class Chat {
  #connection: Connection
  #outbox: Outbox
  #uploads: Uploads
  #feeds = new Map<string, Feed>()
  #conversations = new Map<string, Conversation>()
  #users = new Map<string, boolean>()
  /** What the functions were told about reading, per conversation. */
  #readSent = new Map<string, number>()
  #selected: string | undefined
  /** When the last hello was answered, in milliseconds since the epoch; 0 before the first. */
  #greetedAt = 0
  /** Pushes since the hello under way was sent: they may be newer than its answer. */
  #sinceHello: Push[] | undefined
  #probe: ReturnType<typeof setInterval> | undefined
  #listeners = new Set<() => void>()
  #notifying = false

  constructor(
    readonly user: string,
    private readonly environment: ChatEnvironment,
  ) {
    this.#connection = new Connection(user, environment, {
      greet: () => this.#greet(),
      pushed: (push) => this.#pushed(push),
      changed: () => this.#changed(),
    })
    this.#outbox = new Outbox({
      request: (op, fields) => this.#request(op, fields),
      stored: (message) => this.#received(message),
      chance: () => environment.chance(),
      newKey: () => environment.newKey(),
      keep: environment.keep,
      changed: () => this.#changed(),
    })
    this.#uploads = new Uploads({
      invite: async (conversation, name, size) => parseInvitation(await this.#request('attach', { conversation, name, size })),
      bring: environment.bring,
      newKey: () => environment.newKey(),
      changed: () => this.#changed(),
    })
  }

  start(): void {
    this.#connection.start()
    this.#probe = setInterval(() => {
      if (PROBE_MS <= Date.now() - this.#connection.heardAt) {
        this.check()
      }
    }, PROBE_TICK_MS)
  }

  stop(): void {
    clearInterval(this.#probe)
    this.#connection.stop()
    this.#outbox.stop()
    this.#uploads.stop()
    for (const feed of this.#feeds.values()) {
      feed.stop()
    }
  }

  /** Calls `listener` after changes, many at once. Returns a function that ends it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  get connection(): ConnectionState {
    return this.#connection.state
  }

  /** Handshakes refused in a row. */
  get refusals(): number {
    return this.#connection.refusals
  }

  /** Whether the service ever answered this user's hello. */
  get greeted(): boolean {
    return 0 < this.#greetedAt
  }

  get conversations(): Conversation[] {
    return [...this.#conversations.values()]
  }

  conversation(id: string): Conversation | undefined {
    return this.#conversations.get(id)
  }

  /** Everybody known, this user included. */
  get users(): User[] {
    return [...this.#users].map(([name, online]) => ({ name, online }))
  }

  isOnline(name: string): boolean {
    return this.#users.get(name) ?? false
  }

  /** The history of a conversation that was opened before. */
  feed(id: string): Feed | undefined {
    return this.#feeds.get(id)
  }

  unsent(id: string): readonly Unsent[] {
    return this.#outbox.of(id)
  }

  unread({ lastSeq, readSeq }: Conversation): number {
    return Math.max(0, lastSeq - readSeq)
  }

  retryNow(): void {
    this.#connection.retryNow()
  }

  /** Asks for something, so that a dead connection is noticed and a lost push is found. */
  check(): void {
    if (this.#connection.state.kind === 'online') {
      const id = this.#selected !== undefined && this.#mayRead(this.#selected) ? this.#selected : PUBLIC
      const feed = this.#feeds.get(id)
      if (feed) {
        feed.reconnected(true)
      } else {
        this.#request('open', { conversation: PUBLIC, limit: 1 }).catch((error: unknown) => this.#note(error))
      }
    } else {
      this.#connection.retryNow()
    }
  }

  /** Says which conversation is on the screen. Its history is loaded. */
  select(id: string | undefined): void {
    this.#selected = id
    if (id !== undefined && this.#mayRead(id)) {
      this.#open(id)
    }
  }

  /** Sends a text with the files that were brought for it. Returns false when too many messages are waiting already. */
  send(id: string, text: string): boolean {
    const receipts = this.uploads(id).flatMap(({ receipt }) => receipt ?? [])
    const taken = this.#outbox.add(id, text, receipts)
    if (taken) {
      this.#uploads.clear(id)
    }
    return taken
  }

  /** The files for the next message in a conversation. */
  uploads(id: string): readonly Upload[] {
    return this.#uploads.of(id)
  }

  /** Begins to bring files. Returns false when they are too many for one message. */
  attach(id: string, files: readonly File[]): boolean {
    return this.#uploads.add(id, files)
  }

  detach(key: string): void {
    this.#uploads.remove(key)
  }

  attachAgain(key: string): void {
    this.#uploads.retry(key)
  }

  /** Gets new links for the files of a message. */
  async renew(id: string, seq: number): Promise<void> {
    await this.#feeds.get(id)?.renew(seq).catch((error: unknown) => this.#note(error))
  }

  resend(key: string): void {
    this.#outbox.resend(key)
  }

  discard(key: string): void {
    this.#outbox.discard(key)
  }

  /** Everything up to `seq` was seen. Told to the functions now or after the next hello. */
  markRead(id: string, seq: number): void {
    const conversation = this.#conversations.get(id)
    if (conversation && conversation.readSeq < seq) {
      this.#conversations.set(id, { ...conversation, readSeq: seq })
      this.#tellRead(id)
      this.#changed()
    }
  }

  /** Finds or makes the conversation with one other user. @throws RequestError or ConnectionLost */
  async direct(user: string): Promise<Conversation> {
    return this.#adopt(await this.#request('direct', { user }))
  }

  /** @throws RequestError or ConnectionLost */
  async create(title: string, members: readonly string[]): Promise<Conversation> {
    return this.#adopt(await this.#request('create', { title, members }))
  }

  /** @throws RequestError or ConnectionLost */
  async invite(id: string, user: string): Promise<void> {
    this.#adopt(await this.#request('invite', { conversation: id, user }))
  }

  /** @throws RequestError or ConnectionLost */
  async join(id: string): Promise<void> {
    this.#adopt(await this.#request('join', { conversation: id }))
  }

  /** Leaves a group, or declines its invitation. @throws RequestError or ConnectionLost */
  async leave(id: string): Promise<void> {
    await this.#request('leave', { conversation: id })
    this.#drop(id)
    this.#changed()
  }

  #request(op: string, fields: Body): Promise<Body> {
    return this.#connection.request(op, fields)
  }

  async #greet(): Promise<void> {
    let again: boolean
    do {
      const since: Push[] = []
      this.#sinceHello = since
      const hello = parseHello(await this.#request('hello', {}))
      this.#sinceHello = undefined
      again = HELLO_PUSHES_MAX < since.length
      this.#users = new Map(hello.users.map(({ name, online }) => [name, online]))
      const known = new Set(hello.conversations.map(({ id }) => id))
      for (const { id, kind } of this.conversations) {
        // A direct conversation without a message exists only where it was opened.
        if (!known.has(id) && kind !== 'direct') {
          this.#drop(id)
        }
      }
      for (const conversation of hello.conversations) {
        this.#readSent.set(conversation.id, conversation.readSeq)
        this.#merge(conversation)
      }
      since.forEach((push) => this.#apply(push))
    } while (again)
    this.#greetedAt = Date.now()
    for (const [id, feed] of this.#feeds) {
      feed.reconnected(id === this.#selected)
    }
    for (const id of this.#conversations.keys()) {
      this.#tellRead(id)
    }
    this.#outbox.flush()
  }

  #pushed(push: Push): void {
    if (this.#sinceHello && push.type !== 'message' && push.type !== 'read' && this.#sinceHello.length <= HELLO_PUSHES_MAX) {
      this.#sinceHello.push(push)
    }
    this.#apply(push)
    this.#changed()
  }

  #apply(push: Push): void {
    switch (push.type) {
      case 'message':
        return this.#received(push.message)
      case 'presence':
        this.#users.set(push.user, push.online)
        return
      case 'read': {
        this.#readSent.set(push.conversation, Math.max(this.#readSent.get(push.conversation) ?? 0, push.seq))
        this.#move(push.conversation, { readSeq: push.seq })
        return
      }
      case 'conversation':
        return this.#merge(push.conversation)
      case 'left':
        return this.#drop(push.conversation)
    }
  }

  #received(message: Message): void {
    const { conversation: id, seq, user } = message
    if (!this.#conversations.has(id)) {
      this.#appear(id, user)
    }
    // Sending counts as having read.
    this.#move(id, user === this.user ? { lastSeq: seq, readSeq: seq } : { lastSeq: seq })
    this.#feeds.get(id)?.receive(message)
    this.#settle(id)
  }

  /** A message of a conversation that is not listed: the first one of a direct conversation, or one that was missed. */
  #appear(id: string, sender: string): void {
    const other = sender === this.user ? directOther(id, this.user) : sender
    if (id.startsWith('direct~') && other !== undefined) {
      const members = [this.user, other].sort()
      this.#merge({ id, kind: 'direct', title: other, members, invited: [], state: 'member', lastSeq: 0, readSeq: 0 })
    } else if (!this.#sinceHello && this.#greetedAt + GREET_AGAIN_MS <= Date.now()) {
      this.#greet().catch((error: unknown) => this.#note(error))
    }
  }

  /** A conversation as the functions see it; sequence numbers only grow. */
  #merge(conversation: Conversation): void {
    const known = this.#conversations.get(conversation.id)
    this.#conversations.set(conversation.id, {
      ...conversation,
      lastSeq: Math.max(conversation.lastSeq, known?.lastSeq ?? 0),
      readSeq: Math.max(conversation.readSeq, known?.readSeq ?? 0),
    })
    this.#feeds.get(conversation.id)?.heard(conversation.lastSeq)
    if (this.#selected === conversation.id && known?.state !== conversation.state && this.#mayRead(conversation.id)) {
      this.#open(conversation.id)
    }
  }

  #move(id: string, { lastSeq = 0, readSeq = 0 }: { lastSeq?: number; readSeq?: number }): void {
    const known = this.#conversations.get(id)
    if (known) {
      this.#merge({ ...known, lastSeq: Math.max(known.lastSeq, lastSeq), readSeq: Math.max(known.readSeq, readSeq) })
    }
  }

  #drop(id: string): void {
    this.#conversations.delete(id)
    this.#readSent.delete(id)
    this.#feeds.get(id)?.stop()
    this.#feeds.delete(id)
  }

  #adopt(body: Body): Conversation {
    const conversation = parseConversation(body.conversation)
    this.#merge(conversation)
    this.#changed()
    return conversation
  }

  #mayRead(id: string): boolean {
    return this.#conversations.get(id)?.state === 'member'
  }

  #open(id: string): void {
    let feed = this.#feeds.get(id)
    if (!feed) {
      const chance = () => this.environment.chance()
      feed = new Feed(id, (op, fields) => this.#request(op, fields), chance, () => {
        this.#settle(id)
        this.#changed()
      })
      this.#feeds.set(id, feed)
    }
    feed.want()
  }

  /** What the history shows is no longer on its way. */
  #settle(id: string): void {
    if (this.#outbox.of(id).length === 0) {
      return
    }
    const feed = this.#feeds.get(id)
    if (feed?.loaded) {
      this.#outbox.arrived(new Set(feed.messages.filter(({ user }) => user === this.user).map(({ key }) => key)))
    }
    this.#outbox.completed(id, feed?.loaded ? feed.to : Infinity)
  }

  #tellRead(id: string): void {
    const conversation = this.#conversations.get(id)
    const told = this.#readSent.get(id) ?? 0
    if (conversation && told < conversation.readSeq && this.#connection.state.kind !== 'stopped') {
      this.#readSent.set(id, conversation.readSeq)
      this.#request('read', { conversation: id, seq: conversation.readSeq }).catch((error: unknown) => this.#note(error))
    }
  }

  /** A failure that repairs itself: the next hello starts from what the functions know. */
  #note(error: unknown): void {
    if (error instanceof RequestError) {
      console.warn('The service refused a request.', error)
    } else if (!(error instanceof ConnectionLost)) {
      throw error
    }
  }

  #changed(): void {
    if (!this.#notifying) {
      this.#notifying = true
      queueMicrotask(() => {
        this.#notifying = false
        this.#listeners.forEach((listener) => listener())
      })
    }
  }
}

/** Returns the other user of a direct conversation's id, or undefined when it is not one of `user`'s. */
export function directOther(id: string, user: string): string | undefined {
  const [kind, first, second, ...rest] = id.split('~')
  if (kind !== 'direct' || first === undefined || second === undefined || 0 < rest.length) {
    return undefined
  }
  try {
    const names = [decodeURIComponent(first), decodeURIComponent(second)]
    return names.includes(user) ? names.find((name) => name !== user) : undefined
  } catch {
    return undefined
  }
}
