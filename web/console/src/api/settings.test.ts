import { describe, expect, it } from 'vitest'
import { UnexpectedAnswer } from './reading'
import { readHubSettings, readTemplates } from './settings'

describe('settings', () => {
  it('of a hub keep what the page does not know, and do not send back where they came from', () => {
    const handler = { urlTemplate: 'http://h/{event}', systemEvents: ['connect'], auth: { type: 'bearer', file: '/f' }, later: 1 }
    const { source, settings } = readHubSettings({ source: 'stored', anonymousConnect: 'allow', eventHandlers: [handler], groupPresenceEvents: { eventNames: ['joined'] } })
    expect(source).toBe('stored')
    expect(settings).toEqual({
      anonymousConnect: 'allow',
      eventHandlers: [{ ...handler, userEventPattern: '' }],
      eventListeners: [],
      groupPresenceEvents: { eventNames: ['joined'] },
    })
  })

  it('of the preview have patterns that take everything where none is written', () => {
    expect(readTemplates({ templates: [{ urlTemplate: 'http://h' }] })).toEqual([
      { hubPattern: '*', categoryPattern: '*', eventPattern: '*', urlTemplate: 'http://h' },
    ])
  })

  it.each([undefined, null, [], { templates: {} }, { templates: [{}] }])('%j are none', (value) => {
    expect(() => readTemplates(value)).toThrow(UnexpectedAnswer)
  })
})
