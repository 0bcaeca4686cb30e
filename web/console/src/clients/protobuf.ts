/**
 * The protobuf subprotocol of Web PubSub: the parts of its structure that a person tries out. Fields by number, as in the wire format;
 * what is not known here is shown by its number.
 */

import { asText, fromBase64, toBase64 } from './bytes'
import type { ClientMessage, Data } from './message'

const VARINT = 0
const FIXED_64 = 1
const LENGTH = 2
const FIXED_32 = 5

/** Bytes of the longest varint. */
const VARINT_BYTES_MAX = 10

class Writer {
  readonly #bytes: number[] = []

  number(field: number, value: number | boolean): this {
    return this.#varint(8 * field + VARINT).#varint(Number(value))
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value))
  }

  bytes(field: number, value: Uint8Array): this {
    this.#varint(8 * field + LENGTH).#varint(value.length)
    for (const byte of value) {
      this.#bytes.push(byte)
    }
    return this
  }

  message(field: number, write: (inner: Writer) => unknown): this {
    const inner = new Writer()
    write(inner)
    return this.bytes(field, inner.end())
  }

  end(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#bytes)
  }

  #varint(value: number): this {
    for (let rest = BigInt(value); ; ) {
      const low = Number(rest & 0x7fn)
      rest >>= 7n
      if (rest === 0n) {
        this.#bytes.push(low)
        return this
      }
      this.#bytes.push(low | 0x80)
    }
  }
}

/** Returns a message as a frame. */
export function protobufFrame(message: ClientMessage): Uint8Array<ArrayBuffer> {
  const frame = new Writer()
  switch (message.type) {
    case 'sendToGroup':
      return frame
        .message(1, (inner) =>
          inner
            .text(1, message.group)
            .number(2, message.ackId)
            .message(3, (data) => writeData(data, message))
            .number(4, message.noEcho),
        )
        .end()
    case 'event':
      return frame
        .message(5, (inner) =>
          inner
            .text(1, message.event)
            .message(2, (data) => writeData(data, message))
            .number(3, message.ackId),
        )
        .end()
    case 'joinGroup':
      return frame.message(6, (inner) => inner.text(1, message.group).number(2, message.ackId)).end()
    case 'leaveGroup':
      return frame.message(7, (inner) => inner.text(1, message.group).number(2, message.ackId)).end()
    case 'sequenceAck':
      return frame.message(8, (inner) => inner.number(1, message.sequenceId)).end()
    case 'ping':
      return frame.message(9, () => undefined).end()
  }
}

function writeData(data: Writer, { dataType, data: content }: Data): void {
  if (dataType === 'binary') {
    data.bytes(2, fromBase64(content))
  } else {
    data.text(dataType === 'text' ? 1 : 4, content)
  }
}

/** How a field is read: its name, and what it holds. */
type Shape = Readonly<Record<number, readonly [name: string, kind: Kind]>>
type Kind = 'text' | 'number' | 'flag' | 'bytes' | Shape

const FAULT: Shape = { 1: ['name', 'text'], 2: ['message', 'text'] }
const DATA: Shape = { 1: ['text', 'text'], 2: ['binary', 'bytes'], 3: ['protobuf', 'bytes'], 4: ['json', 'text'] }

const FROM_CLIENT: Shape = {
  1: ['sendToGroup', { 1: ['group', 'text'], 2: ['ackId', 'number'], 3: ['data', DATA], 4: ['noEcho', 'flag'] }],
  5: ['event', { 1: ['event', 'text'], 2: ['data', DATA], 3: ['ackId', 'number'] }],
  6: ['joinGroup', { 1: ['group', 'text'], 2: ['ackId', 'number'] }],
  7: ['leaveGroup', { 1: ['group', 'text'], 2: ['ackId', 'number'] }],
  8: ['sequenceAck', { 1: ['sequenceId', 'number'] }],
  9: ['ping', {}],
}

const FROM_SERVICE: Shape = {
  1: ['ack', { 1: ['ackId', 'number'], 2: ['success', 'flag'], 3: ['error', FAULT] }],
  2: ['message', { 1: ['from', 'text'], 2: ['group', 'text'], 3: ['data', DATA], 4: ['sequenceId', 'number'] }],
  3: [
    'system',
    {
      1: ['connected', { 1: ['connectionId', 'text'], 2: ['userId', 'text'], 3: ['reconnectionToken', 'text'] }],
      2: ['disconnected', { 2: ['reason', 'text'] }],
    },
  ],
  4: ['pong', {}],
}

export type Decoded = { readonly [name: string]: string | number | boolean | Decoded }

/** Returns what a frame says. Throws when it is not protobuf. */
export function decodeProtobuf(frame: Uint8Array, sentBy: 'client' | 'service'): Decoded {
  return decode(frame, sentBy === 'client' ? FROM_CLIENT : FROM_SERVICE)
}

function decode(bytes: Uint8Array, shape: Shape): Decoded {
  const fields: Record<string, string | number | boolean | Decoded> = {}
  let at = 0
  const varint = (): number => {
    let value = 0n
    for (let count = 0; count < VARINT_BYTES_MAX; count += 1) {
      const byte = bytes[at]
      if (byte === undefined) {
        break
      }
      at += 1
      value |= BigInt(byte & 0x7f) << BigInt(7 * count)
      if (byte < 0x80) {
        return Number(value)
      }
    }
    throw new Error('a number does not end')
  }
  const take = (count: number): Uint8Array => {
    if (bytes.length - at < count) {
      throw new Error('a field is cut off')
    }
    at += count
    return bytes.subarray(at - count, at)
  }
  while (at < bytes.length) {
    const tag = varint()
    const [name, kind] = shape[Math.floor(tag / 8)] ?? [`field${Math.floor(tag / 8)}`, 'bytes']
    switch (tag % 8) {
      case VARINT: {
        const value = varint()
        fields[name] = kind === 'flag' ? value !== 0 : value
        break
      }
      case LENGTH:
        fields[name] = content(take(varint()), kind)
        break
      case FIXED_64:
        fields[name] = toBase64(take(8))
        break
      case FIXED_32:
        fields[name] = toBase64(take(4))
        break
      default:
        throw new Error('a field has an unknown type')
    }
  }
  return fields
}

function content(bytes: Uint8Array, kind: Kind): string | Decoded {
  if (typeof kind === 'object') {
    return decode(bytes, kind)
  }
  return (kind === 'text' ? asText(bytes) : undefined) ?? toBase64(bytes)
}
