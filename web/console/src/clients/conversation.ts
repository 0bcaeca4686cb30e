/** One client that is tried out: a socket, and every frame in both directions. */

import { asText, hexDump } from './bytes'
import type { ClientKind } from './kinds'
import { type ClientMessage, jsonFrame } from './message'
import { decodeProtobuf, protobufFrame } from './protobuf'

/** Bytes of a binary frame that are shown. */
const SHOWN_BYTES_MAX = 1_024

/** Characters of a text that are shown. */
const SHOWN_CHARACTERS_MAX = 8_192

export interface Line {
  readonly id: number
  /** Milliseconds since 1970. */
  readonly time: number
  readonly direction: 'in' | 'out' | 'note'
  /** What kind of frame it was, or what happened. */
  readonly label: string
  readonly text: string
  readonly hex: string | undefined
}

export type State = 'connecting' | 'open' | 'closed'

export interface Listener {
  line(line: Line): void
  state(state: State): void
}

let lines = 0

export class Conversation {
  readonly #socket: WebSocket
  readonly #kind: ClientKind
  readonly #listener: Listener

  constructor(kind: ClientKind, url: { shown: string; full: string }, listener: Listener) {
    this.#kind = kind
    this.#listener = listener
    this.#socket = kind.subprotocol === undefined ? new WebSocket(url.full) : new WebSocket(url.full, kind.subprotocol)
    this.#socket.binaryType = 'arraybuffer'
    this.#tell('note', 'connecting', url.shown)
    listener.state('connecting')
    this.#socket.onopen = () => {
      this.#tell('note', 'open', this.#socket.protocol === '' ? 'no subprotocol' : `subprotocol ${this.#socket.protocol}`)
      listener.state('open')
    }
    this.#socket.onmessage = ({ data }: MessageEvent<string | ArrayBuffer>) => this.#received(data)
    this.#socket.onclose = ({ code, reason }) => {
      this.#tell('note', 'closed', closing(code, reason))
      listener.state('closed')
    }
  }

  say(message: ClientMessage): void {
    this.sendRaw(this.#kind.form === 'protobuf' ? protobufFrame(message) : jsonFrame(message))
  }

  sendRaw(frame: string | Uint8Array<ArrayBuffer>): void {
    this.#socket.send(frame)
    this.#frame('out', frame)
  }

  close(): void {
    this.#socket.close(1000)
  }

  /** Closes it for good: nothing is told any more. */
  drop(): void {
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null
    this.#socket.close(1000)
  }

  #received(data: string | ArrayBuffer): void {
    this.#frame('in', typeof data === 'string' ? data : new Uint8Array(data))
    const sequenceId = this.#kind.id === 'reliable' && typeof data === 'string' ? sequenceOf(data) : undefined
    if (sequenceId !== undefined) {
      this.say({ type: 'sequenceAck', sequenceId })
    }
  }

  #frame(direction: 'in' | 'out', frame: string | Uint8Array): void {
    if (typeof frame === 'string') {
      this.#tell(direction, `text, ${size(new TextEncoder().encode(frame).length)}`, withoutToken(frame))
      return
    }
    const decoded = this.#kind.form === 'protobuf' ? explain(frame, direction) : (asText(frame) ?? '')
    this.#tell(direction, `binary, ${size(frame.length)}`, decoded, hexDump(frame, SHOWN_BYTES_MAX))
  }

  #tell(direction: Line['direction'], label: string, text: string, hex?: string): void {
    lines += 1
    const shown = SHOWN_CHARACTERS_MAX < text.length ? `${text.slice(0, SHOWN_CHARACTERS_MAX)}…` : text
    this.#listener.line({ id: lines, time: Date.now(), direction, label, text: shown, hex })
  }
}

/** Who sees the screen must not be able to take the connection over. */
function withoutToken(text: string): string {
  return text.replace(/("reconnectionToken"\s*:\s*)"[^"]*"/u, '$1"(hidden)"')
}

function explain(frame: Uint8Array, direction: 'in' | 'out'): string {
  try {
    return JSON.stringify(decodeProtobuf(frame, direction === 'out' ? 'client' : 'service'))
  } catch (error) {
    return `not understood: ${(error as Error).message}`
  }
}

function sequenceOf(frame: string): number | undefined {
  try {
    const { sequenceId } = JSON.parse(frame) as { sequenceId?: unknown }
    return typeof sequenceId === 'number' ? sequenceId : undefined
  } catch {
    return undefined
  }
}

function size(bytes: number): string {
  return bytes === 1 ? '1 byte' : `${bytes} bytes`
}

function closing(code: number, reason: string): string {
  const words = reason === '' ? '' : `: ${reason}`
  if (code === 1006) {
    return 'without a close frame: the handshake was refused, or the network broke. The events page says why a handshake was refused.'
  }
  return `code ${code}${words}`
}
