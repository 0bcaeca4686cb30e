import { describe, expect, it } from 'vitest'
import { EventReader, readEvents } from './sse'

const STREAM = ': still here\n\nid: 1\ndata: {"a":1}\n\nevent: missed\r\ndata: 3\r\n\r\nid: 2\ndata: one\ndata:two\n\n'
const EVENTS = [
  { type: 'message', data: '{"a":1}', id: '1' },
  { type: 'missed', data: '3', id: '1' },
  { type: 'message', data: 'one\ntwo', id: '2' },
]

describe('server-sent events', () => {
  it('are the same however the stream is cut', () => {
    for (let size = 1; size <= STREAM.length; size += 1) {
      const reader = new EventReader()
      const events = []
      for (let start = 0; start < STREAM.length; start += size) {
        events.push(...reader.read(STREAM.slice(start, start + size)))
      }
      expect(events, `pieces of ${size}`).toEqual(EVENTS)
    }
  })

  it('are not given before they are complete', () => {
    const reader = new EventReader()
    expect(reader.read('data: x\n')).toEqual([])
    expect(reader.read('\n')).toEqual([{ type: 'message', data: 'x', id: undefined }])
  })

  it('come from a response until it ends', async () => {
    const seen: string[] = []
    await readEvents(new Response(STREAM), ({ data }) => seen.push(data))
    expect(seen).toEqual(EVENTS.map(({ data }) => data))
  })

  it('do not grow without end', () => {
    expect(() => new EventReader().read('x'.repeat(70_000))).toThrow('too long')
  })
})
