/**
 * One connection to the service that is made again whenever it breaks.
 *
 * A connection is `online` once its greeting was answered. Requests are answered on the socket that asked, or fail with
 * `ConnectionLost` when that socket goes: whoever asked knows what is safe to ask again.
 */

import { backoffMs } from './backoff'
import { type Answer, type Body, type Endpoint, type Push, WireError, parseFrame } from './wire'

/** Milliseconds from the first step of a connection to the open socket. */
export const HANDSHAKE_MS_MAX = 15_000

/** Milliseconds a request may stay unanswered. After that the socket counts as dead. */
export const REQUEST_MS_MAX = 15_000

/** Requests waiting for their answers on one socket. */
export const REQUESTS_MAX = 256

/** Milliseconds a connection must last before the next break starts again with the shortest wait. */
export const STEADY_MS = 5_000

/** What a browser's WebSocket offers and we use. */
export interface Socket {
  onopen: (() => void) | null
  onmessage: ((event: { readonly data: unknown }) => void) | null
  onclose: ((event: { readonly code: number; readonly reason: string }) => void) | null
  send(text: string): void
  close(): void
}

/** The outside world of a connection. Timers are the global ones. */
export interface Environment {
  endpoint(signal: AbortSignal): Promise<Endpoint>
  socket(url: string, subprotocol: string): Socket
  /** A random number in [0, 1). */
  chance(): number
}

/** Why the connection is down. A browser does not say why a handshake failed. */
export type Fault = 'unreachable' | 'refused' | 'lost'

export type ConnectionState =
  | { readonly kind: 'stopped' }
  | { readonly kind: 'connecting'; readonly attempt: number }
  | { readonly kind: 'online' }
  /** `retryAt`: milliseconds since the epoch. `attempt`: failed tries in a row. */
  | { readonly kind: 'waiting'; readonly attempt: number; readonly retryAt: number; readonly fault: Fault }

/** The socket went before the answer came. The request may or may not have been carried out. */
export class ConnectionLost extends Error {
  override name = 'ConnectionLost'
}

/** The functions answered: no. `message` is a sentence for people. */
export class RequestError extends Error {
  override name = 'RequestError'
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message)
  }
}

interface Listener {
  /** Says hello on a new socket. The connection is online when the promise resolves and is dropped when it rejects. */
  greet(): Promise<void>
  pushed(push: Push): void
  changed(): void
}

interface Waiting {
  resolve(body: Body): void
  reject(error: Error): void
  timer: ReturnType<typeof setTimeout>
}

export class Connection {
  #state: ConnectionState = { kind: 'stopped' }
  #attempt = 0
  #refusals = 0
  #socket: Socket | undefined
  /** Whether `#socket` is open: only then it takes a request. */
  #open = false
  #abort: AbortController | undefined
  #nextRe = 1
  #heardAt = 0
  #waiting = new Map<number, Waiting>()
  #timer: ReturnType<typeof setTimeout> | undefined
  #steady: ReturnType<typeof setTimeout> | undefined

  constructor(
    private readonly name: string,
    private readonly environment: Environment,
    private readonly listener: Listener,
  ) {}

  get state(): ConnectionState {
    return this.#state
  }

  /** Handshakes refused in a row, while the functions could be reached. */
  get refusals(): number {
    return this.#refusals
  }

  /** When the last frame came, in milliseconds since the epoch; 0 before the first. */
  get heardAt(): number {
    return this.#heardAt
  }

  start(): void {
    if (this.#state.kind === 'stopped') {
      void this.#connect()
    }
  }

  stop(): void {
    this.#release()
    this.#attempt = 0
    this.#refusals = 0
    this.#become({ kind: 'stopped' })
  }

  /** Tries again at once instead of waiting. */
  retryNow(): void {
    if (this.#state.kind === 'waiting') {
      clearTimeout(this.#timer)
      void this.#connect()
    }
  }

  /**
   * Asks the functions.
   *
   * @throws RequestError when they refuse, ConnectionLost when there is no socket or it goes first.
   */
  request(op: string, fields: Body = {}): Promise<Body> {
    const socket = this.#socket
    if (!socket || !this.#open) {
      return Promise.reject(new ConnectionLost('not connected'))
    }
    if (REQUESTS_MAX <= this.#waiting.size) {
      return Promise.reject(new RequestError('unavailable', 'Too many requests at once.'))
    }
    const re = this.#nextRe
    this.#nextRe += 1
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#lose('lost'), REQUEST_MS_MAX)
      this.#waiting.set(re, { resolve, reject, timer })
      socket.send(JSON.stringify({ ...fields, re, op }))
    })
  }

  async #connect(): Promise<void> {
    const abort = new AbortController()
    this.#abort = abort
    this.#become({ kind: 'connecting', attempt: this.#attempt })
    this.#timer = setTimeout(() => this.#lose('unreachable'), HANDSHAKE_MS_MAX)
    let endpoint: Endpoint
    try {
      endpoint = await this.environment.endpoint(abort.signal)
    } catch (error) {
      if (!abort.signal.aborted) {
        console.warn('The endpoint could not be read.', error)
        this.#lose('unreachable')
      }
      return
    }
    if (!abort.signal.aborted) {
      this.#dial(endpoint)
    }
  }

  #dial(endpoint: Endpoint): void {
    const url = new URL(endpoint.url)
    url.searchParams.set('name', this.name)
    let socket: Socket
    try {
      socket = this.environment.socket(url.href, endpoint.subprotocol)
    } catch (error) {
      console.warn('The endpoint names a WebSocket that cannot be made.', error)
      this.#lose('unreachable')
      return
    }
    this.#socket = socket
    socket.onopen = () => {
      this.#open = true
      clearTimeout(this.#timer)
      this.#refusals = 0
      this.listener.greet().then(
        () => this.#greeted(socket),
        (error: unknown) => {
          if (socket === this.#socket) {
            console.warn('The greeting failed.', error)
            this.#lose('lost')
          }
        },
      )
    }
    socket.onmessage = ({ data }) => this.#received(data)
    socket.onclose = () => {
      if (!this.#open) {
        this.#refusals += 1
      }
      this.#lose(this.#open ? 'lost' : 'refused')
    }
  }

  #greeted(socket: Socket): void {
    if (socket !== this.#socket) {
      return
    }
    this.#steady = setTimeout(() => {
      this.#attempt = 0
    }, STEADY_MS)
    this.#become({ kind: 'online' })
  }

  #received(data: unknown): void {
    this.#heardAt = Date.now()
    let frame: Answer | Push | undefined
    try {
      if (typeof data !== 'string') {
        throw new WireError('a binary message')
      }
      frame = parseFrame(data)
    } catch (error) {
      console.warn('A message from the service was not understood.', error)
      return
    }
    if (frame?.type === 'ok' || frame?.type === 'error') {
      this.#answered(frame)
    } else if (frame) {
      this.listener.pushed(frame)
    }
  }

  #answered(answer: Answer): void {
    const waiting = this.#waiting.get(answer.re)
    if (!waiting) {
      return
    }
    this.#waiting.delete(answer.re)
    clearTimeout(waiting.timer)
    if (answer.type === 'ok') {
      waiting.resolve(answer.body)
    } else {
      waiting.reject(new RequestError(answer.code, answer.message))
    }
  }

  /** The try or the socket is over: wait, then try again. */
  #lose(fault: Fault): void {
    this.#release()
    const wait = backoffMs(this.#attempt, this.environment.chance())
    this.#attempt += 1
    this.#timer = setTimeout(() => void this.#connect(), wait)
    this.#become({ kind: 'waiting', attempt: this.#attempt, retryAt: Date.now() + wait, fault })
  }

  /** Lets go of everything that belongs to the current try. */
  #release(): void {
    this.#abort?.abort()
    clearTimeout(this.#timer)
    clearTimeout(this.#steady)
    const socket = this.#socket
    this.#socket = undefined
    this.#open = false
    if (socket) {
      socket.onopen = null
      socket.onmessage = null
      socket.onclose = null
      socket.close()
    }
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { reject, timer } of waiting) {
      clearTimeout(timer)
      reject(new ConnectionLost('the connection was lost'))
    }
  }

  #become(state: ConnectionState): void {
    this.#state = state
    this.listener.changed()
  }
}
