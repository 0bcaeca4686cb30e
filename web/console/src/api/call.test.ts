import { afterEach, describe, expect, it, vi } from 'vitest'
import { Refusal, Unreachable, call, onSessionLost, path, search } from './call'
import { sentence } from './words'

function answers(response: Response | Error): ReturnType<typeof vi.fn> {
  const fetch = vi.fn(() => (response instanceof Error ? Promise.reject(response) : Promise.resolve(response)))
  vi.stubGlobal('fetch', fetch)
  return fetch
}

afterEach(() => vi.unstubAllGlobals())

describe('calls', () => {
  it('escape names, and leave out what is not given', () => {
    expect(path`/hubs/${'a/b'}/groups/${'ä?'}`).toBe('/hubs/a%2Fb/groups/%C3%A4%3F')
    expect(search({ a: 'x y', b: undefined, c: ['1', '2'], d: true })).toBe('?a=x+y&c=1&c=2&d=true')
    expect(search({})).toBe('')
  })

  it('carry the header by which the service knows its page', async () => {
    const fetch = answers(new Response('{}'))
    await call('PUT', '/x', { json: { a: 1 } })
    expect(fetch).toHaveBeenCalledWith('/x', expect.objectContaining({ method: 'PUT', body: '{"a":1}', headers: { 'X-Hookwire-Console': '1', 'Content-Type': 'application/json' } }))
  })

  it('that are refused say why in words', async () => {
    const faults = [{ path: 'templates[0].urlTemplate', message: 'no' }, { nonsense: 1 }]
    answers(new Response(JSON.stringify({ code: 'invalid', message: 'the document has faults', faults }), { status: 400 }))
    const error = (await call('POST', '/x').catch((caught: unknown) => caught)) as Refusal
    expect(error).toMatchObject({ status: 400, code: 'invalid', faults: [faults[0]] })
    expect(sentence(error)).toBe('The document has faults.')
  })

  it('that are refused without a document say what the status means, and when to try again', async () => {
    answers(new Response('<html>', { status: 429, headers: { 'Retry-After': '7' } }))
    expect(sentence(await call('HEAD', '/x').catch((caught: unknown) => caught))).toBe(
      'The service is asked too often. Try again in 7 s.',
    )
  })

  it('tell when the session is gone', async () => {
    const lost = vi.fn()
    onSessionLost(lost)
    answers(new Response('', { status: 401 }))
    await expect(call('GET', '/x')).rejects.toBeInstanceOf(Refusal)
    expect(lost).toHaveBeenCalledOnce()
  })

  it('that nobody answers are told apart', async () => {
    answers(new TypeError('fetch failed'))
    await expect(call('GET', '/x')).rejects.toBeInstanceOf(Unreachable)
  })
})
