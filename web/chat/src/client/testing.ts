/**
 * For tests: an in-memory service with the chat's functions behind it, whose network can delay, repeat, lose and cut.
 *
 * Everything happens on (fake) timers. With the default network each frame takes one millisecond and nothing is lost.
 */

import { Chat, type ChatEnvironment } from './chat'
import type { Socket } from './connection'
import type { Conversation, Message } from './wire'

/** Returns a seeded source of random numbers in [0, 1). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** What the network and the functions do to a frame. */
export interface Weather {
  /** Milliseconds until a frame arrives. Pushes and answers overtake each other when it varies. */
  latencyMs(): number
  /** How often a push is delivered: 0 is lost, 2 is repeated. */
  copies(): number
  refuseHandshake(): boolean
  endpointDown(): boolean
  /** `before`: an error and nothing done; `after`: done, but answered with an error. */
  unavailable(): 'before' | 'after' | undefined
}

export const CALM: Weather = {
  latencyMs: () => 1,
  copies: () => 1,
  refuseHandshake: () => false,
  endpointDown: () => false,
  unavailable: () => undefined,
}

interface Room {
  id: string
  kind: 'public' | 'direct' | 'group'
  title: string
  members: Set<string>
  invited: Set<string>
  messages: Message[]
  read: Map<string, number>
}

type Fields = Record<string, unknown>

class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

export class FakeSocket implements Socket {
  onopen: (() => void) | null = null
  onmessage: ((event: { readonly data: unknown }) => void) | null = null
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null = null
  /** Frames that the page sent, parsed. */
  readonly sent: Fields[] = []
  open = false
  /** Neither direction delivers anymore. */
  dead = false

  constructor(
    private readonly service: FakeService,
    readonly user: string,
    readonly url: string,
  ) {}

  send(text: string): void {
    if (!this.open) {
      throw new Error('sent on a socket that is not open')
    }
    const frame = JSON.parse(text) as Fields
    this.sent.push(frame)
    this.service.later(() => {
      if (!this.dead) {
        this.service.asked(this, frame)
      }
    })
  }

  close(): void {
    this.dead = true
    this.service.gone(this)
  }

  /** Delivers a frame to the page. */
  deliver(frame: unknown): void {
    if (!this.dead) {
      this.onmessage?.({ data: typeof frame === 'string' ? frame : JSON.stringify(frame) })
    }
  }

  /** The connection breaks; what is under way in either direction is lost. */
  cut(): void {
    if (!this.dead) {
      this.dead = true
      this.service.gone(this)
      this.onclose?.({ code: 1006, reason: '' })
    }
  }

  /** The connection dies without anybody noticing. */
  freeze(): void {
    this.dead = true
  }
}

export class FakeService {
  weather = CALM
  readonly sockets = new Set<FakeSocket>()
  readonly rooms = new Map<string, Room>()
  readonly users = new Set<string>()
  #ids = 0

  constructor() {
    this.room('public', 'public', 'Public room', [])
  }

  room(id: string, kind: Room['kind'], title: string, members: string[]): Room {
    const room: Room = { id, kind, title, members: new Set(members), invited: new Set(), messages: [], read: new Map() }
    this.rooms.set(id, room)
    return room
  }

  /** Makes a page of `user` on this service. */
  chat(user: string, chance: () => number = () => 0.5, keep?: ChatEnvironment['keep']): Chat {
    let keys = 0
    const prefix = `${user}-${this.#id()}`
    let kept: string | null = null
    return new Chat(user, {
      endpoint: () =>
        this.weather.endpointDown()
          ? Promise.reject(new Error('endpoint down'))
          : Promise.resolve({ url: 'ws://127.0.0.1:8080/ws/client/hubs/chat', subprotocol: 'hookwire.chat.v1' }),
      socket: (url) => this.dial(url),
      chance,
      newKey: () => `${prefix}-${(keys += 1)}`,
      keep: keep ?? { load: () => kept, save: (text) => (kept = text) },
      bring: async (path, { name, size }) => ({
        ok: true,
        body: { receipt: `${name} by ${path}`, attachment: { name, type: 'application/octet-stream', size } },
      }),
    })
  }

  dial(url: string): FakeSocket {
    const user = new URL(url).searchParams.get('name') ?? ''
    const socket = new FakeSocket(this, user, url)
    this.later(() => {
      if (socket.dead) {
        return
      }
      if (this.weather.refuseHandshake()) {
        socket.cut()
        return
      }
      socket.open = true
      this.sockets.add(socket)
      this.users.add(user)
      socket.onopen?.()
    })
    return socket
  }

  gone(socket: FakeSocket): void {
    if (this.sockets.delete(socket) && !this.online(socket.user)) {
      this.toUsers(this.users, () => ({ type: 'presence', user: socket.user, online: false }))
    }
  }

  online(user: string): boolean {
    return [...this.sockets].some((socket) => socket.user === user)
  }

  /** The open sockets of a user. */
  of(user: string): FakeSocket[] {
    return [...this.sockets].filter((socket) => socket.user === user)
  }

  later(action: () => void): void {
    setTimeout(action, this.weather.latencyMs())
  }

  /** Pushes to every socket of these users, as each user sees it. */
  toUsers(users: Iterable<string>, frame: (user: string) => unknown): void {
    const wanted = new Set(users)
    for (const socket of this.sockets) {
      if (wanted.has(socket.user)) {
        for (let copies = this.weather.copies(); 0 < copies; copies -= 1) {
          this.later(() => socket.deliver(frame(socket.user)))
        }
      }
    }
  }

  /** Somebody sends, whatever page they use. */
  post(user: string, id: string, text: string, key = `key-${this.#id()}`, receipts: readonly string[] = []): Message {
    const room = this.#member(id, user)
    const same = room.messages.find((message) => message.user === user && message.key === key)
    if (same) {
      return same
    }
    const seq = room.messages.length + 1
    const time = new Date(Date.now()).toISOString()
    const attachments = receipts.map((name) => ({ id: name, name, type: 'image/png', size: 1, url: '/api/attachments?ticket=link' }))
    const message = { id: `m${this.#id()}`, conversation: id, seq, user, text, time, key, attachments }
    room.messages.push(message)
    room.read.set(user, seq)
    this.toUsers(this.#audience(room), () => ({ type: 'message', message }))
    return message
  }

  view(room: Room, user: string): Conversation {
    const { id, kind, title, messages } = room
    return {
      id,
      kind,
      title,
      members: [...room.members],
      invited: [...room.invited],
      state: room.invited.has(user) ? 'invited' : 'member',
      lastSeq: messages.length,
      readSeq: room.read.get(user) ?? 0,
    }
  }

  asked(socket: FakeSocket, frame: Fields): void {
    const trouble = this.weather.unavailable()
    let answer: Fields
    try {
      if (trouble === 'before') {
        throw new Refused('unavailable', 'Try again later.')
      }
      answer = { type: 'ok', re: frame.re, ...this.#carryOut(socket.user, frame) }
      if (trouble === 'after') {
        throw new Refused('unavailable', 'Try again later.')
      }
    } catch (error) {
      if (!(error instanceof Refused)) {
        throw error
      }
      answer = { type: 'error', re: frame.re, code: error.code, message: error.message }
    }
    this.later(() => socket.deliver(answer))
  }

  #carryOut(user: string, frame: Fields): Fields {
    const id = String(frame.conversation)
    switch (frame.op) {
      case 'hello':
        this.toUsers(this.users, () => ({ type: 'presence', user, online: true }))
        return {
          user,
          conversations: [...this.rooms.values()]
            .filter((room) => room.kind === 'public' || room.members.has(user) || room.invited.has(user))
            .map((room) => this.view(room, user)),
          users: [...this.users].map((name) => ({ name, online: this.online(name) })),
        }
      case 'open':
        return this.#open(this.#member(id, user), frame)
      case 'send': {
        const text = String(frame.text)
        if (text === 'forbidden') {
          throw new Refused('invalid', 'This text is not allowed.')
        }
        return { message: this.post(user, id, text, String(frame.key), frame.attachments as string[] | undefined) }
      }
      case 'attach':
        return { upload: `/api/attachments?ticket=${this.#id()}` }
      case 'read': {
        const room = this.#member(id, user)
        const seq = Math.max(room.read.get(user) ?? 0, Number(frame.seq))
        room.read.set(user, seq)
        this.toUsers([user], () => ({ type: 'read', conversation: id, seq }))
        return {}
      }
      case 'direct': {
        const names = [user, String(frame.user)].sort()
        const direct = `direct~${names.map(encodeURIComponent).join('~')}`
        return { conversation: this.view(this.rooms.get(direct) ?? this.room(direct, 'direct', '', names), user) }
      }
      case 'create': {
        const room = this.room(`group~${this.#id()}`, 'group', String(frame.title), [user])
        ;((frame.members as string[] | undefined) ?? []).forEach((member) => room.invited.add(member))
        return { conversation: this.#announce(room, user) }
      }
      case 'invite': {
        const room = this.#member(id, user)
        room.invited.add(String(frame.user))
        return { conversation: this.#announce(room, user) }
      }
      case 'join': {
        const room = this.rooms.get(id)
        if (!room?.invited.delete(user)) {
          throw new Refused('forbidden', 'You are not invited.')
        }
        room.members.add(user)
        return { conversation: this.#announce(room, user) }
      }
      case 'leave': {
        const room = this.rooms.get(id)
        room?.members.delete(user)
        room?.invited.delete(user)
        this.toUsers([user], () => ({ type: 'left', conversation: id }))
        if (room) {
          this.#announce(room, user)
        }
        return {}
      }
      default:
        throw new Refused('invalid', 'Unknown operation.')
    }
  }

  #open(room: Room, { before, after, limit }: Fields): Fields {
    const max = Number(limit)
    if (typeof after === 'number') {
      const newer = room.messages.filter(({ seq }) => after < seq)
      return { messages: newer.slice(0, max), more: max < newer.length }
    }
    const older = room.messages.filter(({ seq }) => seq < (typeof before === 'number' ? before : Infinity))
    return { messages: older.slice(-max), more: max < older.length }
  }

  #announce(room: Room, user: string): Conversation {
    this.toUsers([...room.members, ...room.invited], (to) => ({ type: 'conversation', conversation: this.view(room, to) }))
    return this.view(room, user)
  }

  #member(id: string, user: string): Room {
    const room = this.rooms.get(id)
    if (!room || (room.kind !== 'public' && !room.members.has(user))) {
      throw new Refused('forbidden', 'You are not a member of this conversation.')
    }
    return room
  }

  #audience(room: Room): Iterable<string> {
    return room.kind === 'public' ? this.users : room.members
  }

  #id(): string {
    this.#ids += 1
    return String(this.#ids)
  }
}
