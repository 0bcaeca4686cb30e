import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Connection, ConnectionLost, HANDSHAKE_MS_MAX, REQUEST_MS_MAX, RequestError, STEADY_MS } from './connection'
import { FakeService, type FakeSocket } from './testing'

beforeEach(() => {
  vi.useFakeTimers()
  vi.spyOn(console, 'warn').mockImplementation(() => undefined)
})
afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

function connect(service: FakeService, greet: () => Promise<void> = () => Promise.resolve()) {
  const dialled: FakeSocket[] = []
  const connection = new Connection(
    'Ada Lovelace',
    {
      endpoint: () =>
        service.weather.endpointDown()
          ? Promise.reject(new Error('down'))
          : Promise.resolve({ url: 'ws://127.0.0.1:1/hub?access_token=t', subprotocol: 's' }),
      socket: (url) => {
        const socket = service.dial(url)
        dialled.push(socket)
        return socket
      },
      chance: () => 0.5,
    },
    { greet, pushed: () => undefined, changed: () => undefined },
  )
  connection.start()
  return { connection, dialled }
}

describe('a connection', () => {
  it('keeps the token of the endpoint and adds the name', async () => {
    const { connection, dialled } = connect(new FakeService())
    await vi.advanceTimersByTimeAsync(10)
    expect(connection.state.kind).toBe('online')
    expect(dialled[0]?.url).toBe('ws://127.0.0.1:1/hub?access_token=t&name=Ada+Lovelace')
  })

  it('is not online before its greeting was answered', async () => {
    let answered = () => undefined as void
    const { connection } = connect(new FakeService(), () => new Promise((resolve) => (answered = resolve)))
    await vi.advanceTimersByTimeAsync(10)
    expect(connection.state.kind).toBe('connecting')
    answered()
    await vi.advanceTimersByTimeAsync(0)
    expect(connection.state.kind).toBe('online')
  })

  it('waits longer after each failure and counts refused handshakes', async () => {
    const service = new FakeService()
    service.weather = { ...service.weather, refuseHandshake: () => true }
    const { connection } = connect(service)
    const waits: number[] = []
    for (let failure = 1; failure <= 8; failure += 1) {
      await vi.advanceTimersByTimeAsync(1)
      const state = connection.state
      if (state.kind !== 'waiting') {
        throw new Error(`is ${state.kind}`)
      }
      expect(state.fault).toBe('refused')
      expect(connection.refusals).toBe(failure)
      waits.push(state.retryAt - Date.now())
      await vi.advanceTimersByTimeAsync(state.retryAt - Date.now())
    }
    expect(waits).toEqual([375, 750, 1_500, 3_000, 6_000, 12_000, 22_500, 22_500])
  })

  it('does not count an unreachable endpoint as a refusal', async () => {
    const service = new FakeService()
    service.weather = { ...service.weather, endpointDown: () => true }
    const { connection } = connect(service)
    await vi.advanceTimersByTimeAsync(0)
    expect(connection.state).toMatchObject({ kind: 'waiting', fault: 'unreachable' })
    expect(connection.refusals).toBe(0)
  })

  it('tries again at once when asked to', async () => {
    const service = new FakeService()
    service.weather = { ...service.weather, endpointDown: () => true }
    const { connection } = connect(service)
    await vi.advanceTimersByTimeAsync(10_000)
    service.weather = { ...service.weather, endpointDown: () => false }
    connection.retryNow()
    await vi.advanceTimersByTimeAsync(2)
    expect(connection.state.kind).toBe('online')
  })

  it('starts with the shortest wait again only after it lasted', async () => {
    const service = new FakeService()
    const { connection, dialled } = connect(service)
    for (let cut = 0; cut < 3; cut += 1) {
      await vi.advanceTimersByTimeAsync(1_600)
      dialled.at(-1)?.cut()
    }
    expect(connection.state).toMatchObject({ attempt: 3 })
    await vi.advanceTimersByTimeAsync(1_600 + STEADY_MS)
    dialled.at(-1)?.cut()
    expect(connection.state).toMatchObject({ attempt: 1 })
  })

  it('fails what is unanswered when it breaks', async () => {
    const { connection, dialled } = connect(new FakeService())
    await vi.advanceTimersByTimeAsync(10)
    const asked = connection.request('open', { conversation: 'public', limit: 1 })
    dialled[0]?.cut()
    await expect(asked).rejects.toBeInstanceOf(ConnectionLost)
    await expect(connection.request('hello')).rejects.toBeInstanceOf(ConnectionLost)
  })

  it('passes a refusal on with its sentence', async () => {
    const { connection } = connect(new FakeService())
    await vi.advanceTimersByTimeAsync(10)
    const asked = connection.request('join', { conversation: 'group~x' }).catch((error: unknown) => error)
    await vi.advanceTimersByTimeAsync(10)
    const error = await asked
    expect(error).toBeInstanceOf(RequestError)
    expect(error).toMatchObject({ code: 'forbidden', message: 'You are not invited.' })
  })

  it('counts as dead when a request is not answered in time', async () => {
    const { connection, dialled } = connect(new FakeService())
    await vi.advanceTimersByTimeAsync(10)
    dialled[0]?.freeze()
    const asked = connection.request('hello').catch((error: unknown) => error)
    await vi.advanceTimersByTimeAsync(REQUEST_MS_MAX)
    expect(await asked).toBeInstanceOf(ConnectionLost)
    expect(connection.state.kind).toBe('waiting')
  })

  it('gives up a handshake that never ends', async () => {
    const service = new FakeService()
    const { connection, dialled } = connect(service)
    dialled[0]?.freeze()
    await vi.advanceTimersByTimeAsync(0)
    dialled[0]?.freeze()
    await vi.advanceTimersByTimeAsync(HANDSHAKE_MS_MAX)
    expect(connection.state.kind).toBe('waiting')
  })

  it('survives what it does not understand', async () => {
    const { connection, dialled } = connect(new FakeService())
    await vi.advanceTimersByTimeAsync(10)
    for (const frame of ['', 'null', '{"type":"ok","re":99}', '{"type":"message"}', '{"type":"weather"}']) {
      dialled[0]?.deliver(frame)
    }
    dialled[0]?.onmessage?.({ data: new ArrayBuffer(3) })
    expect(connection.state.kind).toBe('online')
  })

  it('does nothing more once it is stopped', async () => {
    const service = new FakeService()
    const { connection, dialled } = connect(service)
    connection.stop()
    await vi.advanceTimersByTimeAsync(100_000)
    expect(connection.state.kind).toBe('stopped')
    expect(dialled.filter(({ dead }) => !dead)).toEqual([])
    expect(vi.getTimerCount()).toBe(0)
  })
})
