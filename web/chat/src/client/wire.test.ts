import { describe, expect, it } from 'vitest'
import { characters, nameFault } from './limits'
import { WireError, parseEndpoint, parseFrame, parseHello, parseInvitation, parseMessage, parsePage, parseReceipt } from './wire'

const message = { id: 'm1', conversation: 'public', seq: 1, user: 'ada', text: 'hi', time: '2026-01-01T00:00:00Z', key: 'k', attachments: [] }
const room = { id: 'public', kind: 'public', title: 'Public room', state: 'member', lastSeq: 3, readSeq: 1 }

describe('a frame', () => {
  it('is read when it has the promised shape', () => {
    expect(parseFrame(JSON.stringify({ type: 'message', message }))).toEqual({ type: 'message', message })
    expect(parseFrame('{"type":"presence","user":"ada","online":true}')).toEqual({ type: 'presence', user: 'ada', online: true })
    expect(parseFrame('{"type":"error","re":4,"code":"invalid","message":"No."}')).toEqual({
      type: 'error',
      re: 4,
      code: 'invalid',
      message: 'No.',
    })
    expect(parseFrame(JSON.stringify({ type: 'conversation', conversation: room }))).toEqual({
      type: 'conversation',
      conversation: { ...room, members: [], invited: [] },
    })
  })

  it('of an unknown type is nothing, for newer services', () => {
    expect(parseFrame('{"type":"weather","sun":true}')).toBeUndefined()
  })

  it.each([
    'no JSON',
    '[]',
    'null',
    '{"type":"ok"}',
    '{"type":"ok","re":"1"}',
    '{"type":"read","conversation":"public","seq":-1}',
    '{"type":"read","conversation":"public","seq":1.5}',
    '{"type":"presence","user":"ada","online":"yes"}',
    JSON.stringify({ type: 'message', message: { ...message, seq: 0 } }),
    JSON.stringify({ type: 'message', message: { ...message, time: 'noon' } }),
    JSON.stringify({ type: 'message', message: { ...message, text: { html: '<b>' } } }),
    JSON.stringify({ type: 'conversation', conversation: { ...room, kind: 'secret' } }),
    JSON.stringify({ type: 'conversation', conversation: { ...room, state: 'admin' } }),
    JSON.stringify({ type: 'conversation', conversation: { ...room, members: 'ada' } }),
  ])('is refused: %s', (text) => {
    expect(() => parseFrame(text)).toThrow(WireError)
  })
})

describe('an answer', () => {
  it('to open is sorted, each message once', () => {
    const page = parsePage({ messages: [{ ...message, seq: 2 }, message, message], more: false }, 'public')
    expect(page.messages.map(({ seq }) => seq)).toEqual([1, 2])
  })

  it('to open is refused with a message of another conversation', () => {
    expect(() => parsePage({ messages: [message], more: false }, 'group~1')).toThrow(WireError)
  })

  it('to hello is refused without its lists', () => {
    expect(() => parseHello({ user: 'ada', conversations: [] })).toThrow(WireError)
  })
})

describe('an endpoint', () => {
  it('is a WebSocket URL', () => {
    expect(parseEndpoint({ url: 'ws://127.0.0.1:8080/x', subprotocol: 's' }).subprotocol).toBe('s')
    expect(() => parseEndpoint({ url: 'https://127.0.0.1/x', subprotocol: 's' })).toThrow(WireError)
    expect(() => parseEndpoint({ url: 'nowhere', subprotocol: 's' })).toThrow(WireError)
  })
})

describe('a name', () => {
  it('is counted in characters, not in UTF-16 units', () => {
    expect(characters('🦊'.repeat(64))).toBe(64)
    expect(nameFault('🦊'.repeat(64))).toBeUndefined()
    expect(nameFault('a'.repeat(65))).toContain('64')
  })

  it('is refused when it is empty or has control characters', () => {
    expect(nameFault('')).toBeDefined()
    expect(nameFault('a\u0007b')).toBeDefined()
  })
})

describe('a file', () => {
  const attachment = { id: 'a', name: 'a.png', type: 'image/png', size: 3, url: '/api/attachments?ticket=e.y-_J' }

  it('hangs on a message with a path of the functions', () => {
    const parsed = parseMessage({ ...message, attachments: [attachment] })
    expect(parsed.attachments).toEqual([attachment])
    expect(parseReceipt({ receipt: 'r', attachment })).toEqual({ receipt: 'r', name: 'a.png', type: 'image/png', size: 3 })
    expect(parseInvitation({ upload: '/api/attachments?ticket=x' })).toBe('/api/attachments?ticket=x')
  })

  it('is refused when it leads elsewhere or lacks something', () => {
    for (const url of ['', 'javascript:alert(1)', '//elsewhere/api/attachments?ticket=x', 'http://elsewhere/', '/api/attachments?ticket=x#y', 7]) {
      expect(() => parseMessage({ ...message, attachments: [{ ...attachment, url }] })).toThrow(WireError)
      expect(() => parseInvitation({ upload: url })).toThrow(WireError)
    }
    for (const attachments of [null, {}, [null], [{ ...attachment, size: -1 }], [{ ...attachment, name: undefined }]]) {
      expect(() => parseMessage({ ...message, attachments })).toThrow(WireError)
    }
    expect(() => parseReceipt({ receipt: 'r' })).toThrow(WireError)
    expect(() => parseReceipt({ attachment })).toThrow(WireError)
  })
})
