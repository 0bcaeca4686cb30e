import { describe, expect, it } from 'vitest'
import { hexDump } from './bytes'
import { dataFault, jsonFrame } from './message'

describe('frames of the JSON subprotocols', () => {
  it('carry text and binary data as texts', () => {
    expect(jsonFrame({ type: 'event', event: 'e', ackId: 1, dataType: 'text', data: '"' })).toBe(
      '{"type":"event","event":"e","ackId":1,"dataType":"text","data":"\\""}',
    )
  })

  it('carry JSON as it was typed', () => {
    expect(jsonFrame({ type: 'event', event: 'e', ackId: 1, dataType: 'json', data: ' {"n":12345678901234567890}' })).toBe(
      '{"type":"event","event":"e","ackId":1,"dataType":"json","data":{"n":12345678901234567890}}',
    )
  })

  it('are not made of data that are none', () => {
    expect(dataFault({ dataType: 'json', data: '{' })).toMatch(/^This is not JSON/u)
    expect(dataFault({ dataType: 'binary', data: '%' })).toBe('This is not base64.')
    expect(dataFault({ dataType: 'json', data: '[1]' })).toBeUndefined()
    expect(dataFault({ dataType: 'binary', data: 'AA==' })).toBeUndefined()
    expect(dataFault({ dataType: 'text', data: '{' })).toBeUndefined()
  })
})

describe('bytes in hexadecimal', () => {
  it('stand in rows of eight, with their characters', () => {
    const bytes = Uint8Array.from({ length: 10 }, (_, index) => 0x5a + index)
    expect(hexDump(bytes, 100)).toBe('0000  5a 5b 5c 5d 5e 5f 60 61  Z[\\]^_`a\n0008  62 63                    bc')
  })

  it('are cut where there are too many', () => {
    expect(hexDump(new Uint8Array(40), 8).split('\n')).toEqual([`0000  ${'00 '.repeat(8).trim()}  ${'·'.repeat(8)}`, '… and 32 bytes more'])
  })
})
