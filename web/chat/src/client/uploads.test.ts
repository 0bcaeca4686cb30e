import { expect, it } from 'vitest'
import { ConnectionLost, RequestError } from './connection'
import { type Bring, Uploads } from './uploads'

const RECEIPT = { receipt: 'signed', attachment: { name: 'a.png', type: 'image/png', size: 3 } }

function uploads(bring: Bring, invite: () => Promise<string> = async () => '/api/attachments?ticket=t') {
  let keys = 0
  let changes = 0
  let wake = () => {}
  const made = new Uploads({
    invite,
    bring,
    newKey: () => `k${(keys += 1)}`,
    changed: () => {
      changes += 1
      wake()
    },
  })
  /** Waits until the files of the room are in these states. */
  async function become(...states: string[]): Promise<void> {
    while (made.of('public').map(({ state }) => state).join() !== states.join()) {
      await new Promise<void>((resolve) => (wake = resolve))
    }
  }
  return { made, become, changes: () => changes }
}

const file = (name: string) => new File(['abc'], name)

it('brings files one after the other and keeps their receipts', async () => {
  let under = 0
  const { made, become } = uploads(async (path, { size }, progress) => {
    expect([path, size, (under += 1)]).toEqual(['/api/attachments?ticket=t', 3, 1])
    progress(0.5)
    expect(made.of('public').some(({ share }) => share === 0.5)).toBe(true)
    await Promise.resolve()
    under -= 1
    return { ok: true, body: RECEIPT }
  })
  expect(made.add('public', [file('a.png'), file('b.png')])).toBe(true)
  await become('ready', 'ready')
  expect(made.of('public').map(({ receipt }) => receipt?.receipt)).toEqual(['signed', 'signed'])
  expect(made.of('other')).toEqual([])
  made.clear('public')
  expect(made.of('public')).toEqual([])
})

it('says why a file was not taken, and tries again when told', async () => {
  const refused = { ok: false, body: { code: 'too_large', message: 'The file is too large.' } }
  const outcomes: (() => Promise<{ ok: boolean; body: unknown }>)[] = [
    async () => refused,
    () => Promise.reject(new Error('broken off')),
    async () => ({ ok: true, body: {} }),
    async () => ({ ok: true, body: RECEIPT }),
  ]
  const { made, become } = uploads(() => outcomes.shift()!())
  made.add('public', [file('a.png')])
  for (const reason of ['The file is too large.', 'The upload broke off.', 'The answer of the service was not understood.']) {
    await become('failed')
    expect(made.of('public')[0]?.reason).toBe(reason)
    expect(made.of('public')[0]?.again).toBe(reason !== 'The file is too large.')
    made.retry('k1')
  }
  await become('ready')
})

it('says why the functions did not want a file', async () => {
  const faults = [new RequestError('forbidden', 'You are not a member.'), new ConnectionLost()]
  const { made, become } = uploads(
    () => Promise.reject(new Error('nobody was let in')),
    () => Promise.reject(faults.shift()),
  )
  made.add('public', [file('a'), file('b')])
  await become('failed', 'failed')
  expect(made.of('public').map(({ reason }) => reason)).toEqual(['You are not a member.', 'There is no connection at the moment.'])
})

it('breaks off what is removed, and goes on with the next', async () => {
  const { made, become } = uploads((_, { name }, _progress, signal) => {
    if (name === 'next') {
      return Promise.resolve({ ok: true, body: RECEIPT })
    }
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
  })
  made.add('public', [file('slow'), file('next')])
  await become('uploading', 'waiting')
  await Promise.resolve()
  made.remove('k1')
  await become('ready')
})

it('takes ten files at most, and gives them plain names', () => {
  const { made } = uploads(() => new Promise(() => {}))
  const names = ['a/b\\c\u0007.png', ' ', '', 'x'.repeat(200)]
  expect(made.add('public', names.map(file))).toBe(true)
  expect(made.of('public').map(({ name }) => name)).toEqual(['a_b_c_.png', 'file', 'file', 'x'.repeat(120)])
  expect(made.add('public', Array.from({ length: 7 }, () => file('y')))).toBe(false)
  expect(made.of('public').length).toBe(10)
})
