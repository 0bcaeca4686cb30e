import { describe, expect, it } from 'vitest'
import type { ClientMessage } from './message'
import { decodeProtobuf, protobufFrame } from './protobuf'

const MESSAGES: [ClientMessage, ReturnType<typeof decodeProtobuf>][] = [
  [{ type: 'joinGroup', group: 'gä', ackId: 1 }, { joinGroup: { group: 'gä', ackId: 1 } }],
  [{ type: 'leaveGroup', group: 'g', ackId: 300 }, { leaveGroup: { group: 'g', ackId: 300 } }],
  [
    { type: 'sendToGroup', group: 'g', noEcho: true, ackId: 2 ** 40, dataType: 'text', data: 'hi' },
    { sendToGroup: { group: 'g', ackId: 2 ** 40, data: { text: 'hi' }, noEcho: true } },
  ],
  [
    { type: 'event', event: 'order', ackId: 2, dataType: 'json', data: '{"a":1}' },
    { event: { event: 'order', data: { json: '{"a":1}' }, ackId: 2 } },
  ],
  [{ type: 'event', event: 'e', ackId: 3, dataType: 'binary', data: 'AP8=' }, { event: { event: 'e', data: { binary: 'AP8=' }, ackId: 3 } }],
  [{ type: 'sequenceAck', sequenceId: 7 }, { sequenceAck: { sequenceId: 7 } }],
  [{ type: 'ping' }, { ping: {} }],
]

describe('protobuf', () => {
  it.each(MESSAGES)('%j is read as it was written', (message, read) => {
    expect(decodeProtobuf(protobufFrame(message), 'client')).toEqual(read)
  })

  it('has the numbers of the published structure', () => {
    // event_message = 5 { event = 1, data = 2 { text_data = 1 }, ack_id = 3 }
    const frame = protobufFrame({ type: 'event', event: 'a', ackId: 1, dataType: 'text', data: 'b' })
    expect([...frame]).toEqual([0x2a, 10, 0x0a, 1, 0x61, 0x12, 3, 0x0a, 1, 0x62, 0x18, 1])
  })

  it('reads what the service says', () => {
    const connected = [0x1a, 7, 0x0a, 5, 0x0a, 1, 0x63, 0x12, 0]
    expect(decodeProtobuf(Uint8Array.from(connected), 'service')).toEqual({ system: { connected: { connectionId: 'c', userId: '' } } })
    const ack = [0x0a, 11, 0x08, 5, 0x10, 0, 0x1a, 5, 0x0a, 1, 0x46, 0x12, 0]
    expect(decodeProtobuf(Uint8Array.from(ack), 'service')).toEqual({ ack: { ackId: 5, success: false, error: { name: 'F', message: '' } } })
  })

  it('shows what it does not know by its number', () => {
    expect(decodeProtobuf(Uint8Array.from([0x7a, 1, 0x61, 0xf8, 1, 3]), 'service')).toEqual({ field15: 'YQ==', field31: 3 })
  })

  it.each([[[0x0a]], [[0x0a, 5, 1]], [[0x80]], [[0x0b]], [Array(11).fill(0x80)]])('%j is refused', (bytes: number[]) => {
    expect(() => decodeProtobuf(Uint8Array.from(bytes), 'service')).toThrow()
  })
})
