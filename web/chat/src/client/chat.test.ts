import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Chat, HELLO_PUSHES_MAX, PROBE_MS, directOther } from './chat'
import { REQUEST_MS_MAX } from './connection'
import { GAP_WAIT_MS } from './feed'
import { HISTORY_MESSAGES_MAX, PAGE_MESSAGES, TIMELINE_MESSAGES_MAX, UNSENT_MESSAGES_MAX } from './limits'
import { FakeService, type FakeSocket } from './testing'

let service: FakeService
let pages: Chat[] = []

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse('2026-01-01T12:00:00Z') })
  vi.spyOn(console, 'warn').mockImplementation(() => undefined)
  service = new FakeService()
})
afterEach(() => {
  pages.forEach((page) => page.stop())
  pages = []
  vi.useRealTimers()
  vi.restoreAllMocks()
})

async function page(user: string, selected = 'public', keep?: Parameters<FakeService['chat']>[2]): Promise<Chat> {
  const chat = service.chat(user, () => 0.5, keep)
  pages.push(chat)
  chat.start()
  chat.select(selected)
  await settle()
  return chat
}

function settle(ms = 20): Promise<unknown> {
  return vi.advanceTimersByTimeAsync(ms)
}

function texts(chat: Chat, id = 'public'): string[] {
  return (chat.feed(id)?.messages ?? []).map(({ text }) => text)
}

function unread(chat: Chat, id = 'public'): number {
  const conversation = chat.conversation(id)
  return conversation ? chat.unread(conversation) : NaN
}

function socket(user: string): FakeSocket {
  const found = service.of(user)[0]
  if (!found) {
    throw new Error(`${user} has no socket`)
  }
  return found
}

describe('history', () => {
  it('is loaded when a conversation is opened, and pages back to its beginning', async () => {
    for (let n = 1; n <= 2 * PAGE_MESSAGES + 5; n += 1) {
      service.post('bob', 'public', `${n}`)
    }
    const ada = await page('ada')
    expect(texts(ada)).toHaveLength(PAGE_MESSAGES)
    expect(ada.feed('public')?.older).toBe('more')
    for (let step = 0; step < 3; step += 1) {
      void ada.feed('public')?.loadOlder()
      await settle()
    }
    expect(texts(ada)).toEqual(service.rooms.get('public')?.messages.map(({ text }) => text))
    expect(ada.feed('public')?.older).toBe('none')
  })

  it('is asked for only when somebody looks', async () => {
    service.room('group~1', 'group', 'Design', ['ada'])
    const ada = await page('ada')
    service.post('bob', 'public', 'hello')
    await settle()
    expect(socket('ada').sent.filter(({ op, conversation }) => op === 'open' && conversation === 'group~1')).toEqual([])
    expect(ada.feed('group~1')).toBeUndefined()
  })

  it('is kept to a bounded length while nobody pages back', async () => {
    const ada = await page('ada')
    for (let n = 0; n <= TIMELINE_MESSAGES_MAX; n += 1) {
      service.post('bob', 'public', `${n}`)
    }
    await settle()
    expect(texts(ada).length).toBeLessThanOrEqual(TIMELINE_MESSAGES_MAX)
    expect(texts(ada).at(-1)).toBe(`${TIMELINE_MESSAGES_MAX}`)
    expect(ada.feed('public')?.older).toBe('more')
  })

  it('stops paging back at a stated length', async () => {
    for (let n = 1; n <= HISTORY_MESSAGES_MAX + 200; n += 1) {
      service.post('bob', 'public', `${n}`)
    }
    const ada = await page('ada')
    const feed = ada.feed('public')
    if (!feed) {
      throw new Error('no feed')
    }
    feed.reading = true
    while (feed.older === 'more') {
      void feed.loadOlder()
      await settle(2)
    }
    expect(feed.older).toBe('limit')
    expect(feed.messages).toHaveLength(HISTORY_MESSAGES_MAX)
  })

  it('says why it cannot be read, and tries again', async () => {
    let down = true
    service.weather = { ...service.weather, unavailable: () => (down ? 'before' : undefined) }
    const chat = service.chat('ada')
    pages.push(chat)
    down = false
    chat.start()
    await settle()
    down = true
    chat.select('public')
    await settle()
    expect(chat.feed('public')?.fault).toBe('Try again later.')
    down = false
    await settle(5_000)
    expect(chat.feed('public')?.fault).toBeUndefined()
    expect(chat.feed('public')?.loaded).toBe(true)
  })
})

describe('after a break', () => {
  it('asks for what came meanwhile, as many pages as it takes, and shows each once', async () => {
    const ada = await page('ada')
    service.post('bob', 'public', 'before')
    await settle()
    socket('ada').cut()
    for (let n = 1; n <= 250; n += 1) {
      service.post('bob', 'public', `${n}`)
    }
    await settle(1_000)
    expect(texts(ada)).toEqual(['before', ...Array.from({ length: 250 }, (_, i) => `${i + 1}`)])
    expect(socket('ada').sent.filter(({ op }) => op === 'open').map(({ after }) => after)).toEqual([1, 101, 201])
  })

  it('goes on where a second break interrupted it', async () => {
    const ada = await page('ada')
    socket('ada').cut()
    for (let n = 1; n <= 250; n += 1) {
      service.post('bob', 'public', `${n}`)
    }
    for (let frames = 1; frames < 10; frames += 1) {
      await settle(400)
      while (service.of('ada').length === 0) {
        await settle(1)
      }
      await settle(frames)
      socket('ada').cut()
    }
    await settle(60_000)
    expect(texts(ada)).toEqual(Array.from({ length: 250 }, (_, i) => `${i + 1}`))
  })

  it('fills other loaded conversations whose last number moved, and only those', async () => {
    service.room('group~1', 'group', 'Design', ['ada', 'bob'])
    service.room('group~2', 'group', 'Ops', ['ada', 'bob'])
    const ada = await page('ada', 'group~1')
    ada.select('group~2')
    ada.select('public')
    await settle()
    socket('ada').cut()
    service.post('bob', 'group~1', 'news')
    await settle(1_000)
    expect(texts(ada, 'group~1')).toEqual(['news'])
    const opened = socket('ada').sent.filter(({ op }) => op === 'open')
    expect(opened.map(({ conversation }) => conversation).sort()).toEqual(['group~1', 'public'])
  })

  it('applies what was pushed while the hello was under way after its answer', async () => {
    const ada = await page('ada')
    socket('ada').cut()
    service.weather = { ...service.weather, latencyMs: () => 50 }
    await settle(375 + 50 + 60)
    service.users.add('bob')
    // The hello was read at 50 ms; its answer, in which Bob is offline, is still to come.
    socket('ada').deliver({ type: 'presence', user: 'bob', online: true })
    await settle(500)
    expect(ada.connection.kind).toBe('online')
    expect(ada.isOnline('bob')).toBe(true)
  })

  it('says hello again when too much was pushed meanwhile', async () => {
    const ada = await page('ada')
    socket('ada').cut()
    service.weather = { ...service.weather, latencyMs: () => 50 }
    await settle(375 + 60)
    for (let n = 0; n <= HELLO_PUSHES_MAX; n += 1) {
      socket('ada').deliver({ type: 'presence', user: `guest ${n}`, online: true })
    }
    await settle(500)
    expect(socket('ada').sent.filter(({ op }) => op === 'hello')).toHaveLength(2)
    expect(ada.isOnline('guest 0')).toBe(false)
  })

  it('notices a connection that died silently', async () => {
    const ada = await page('ada')
    socket('ada').freeze()
    service.post('bob', 'public', 'lost')
    await settle(PROBE_MS + 15_000 + REQUEST_MS_MAX + 1_000)
    expect(texts(ada)).toEqual(['lost'])
  })
})

describe('pushes', () => {
  it('that overtake each other are shown in order', async () => {
    const ada = await page('ada')
    const latencies = [40, 5, 20, 1]
    service.weather = { ...service.weather, latencyMs: () => latencies.pop() ?? 1 }
    for (const text of ['1', '2', '3', '4']) {
      service.post('bob', 'public', text)
    }
    await settle(30)
    expect(texts(ada)).not.toContain('4')
    await settle(30)
    expect(texts(ada)).toEqual(['1', '2', '3', '4'])
    expect(socket('ada').sent.filter(({ op }) => op === 'open')).toHaveLength(1)
  })

  it('that were lost are asked for when the next one shows the gap', async () => {
    const ada = await page('ada')
    service.weather = { ...service.weather, copies: () => 0 }
    service.post('bob', 'public', 'lost')
    service.weather = { ...service.weather, copies: () => 1 }
    service.post('bob', 'public', 'next')
    await settle()
    expect(texts(ada)).toEqual([])
    await settle(GAP_WAIT_MS)
    expect(texts(ada)).toEqual(['lost', 'next'])
  })

  it('that come twice are shown once', async () => {
    const ada = await page('ada')
    service.weather = { ...service.weather, copies: () => 3 }
    service.post('bob', 'public', 'hello')
    await settle()
    expect(texts(ada)).toEqual(['hello'])
    expect(unread(ada)).toBe(1)
  })

  it('of an unknown group make the page ask what there is', async () => {
    const ada = await page('ada')
    await settle(10_000)
    service.weather = { ...service.weather, copies: () => 0 }
    service.room('group~1', 'group', 'Design', ['ada', 'bob'])
    service.weather = { ...service.weather, copies: () => 1 }
    service.post('bob', 'group~1', 'welcome')
    await settle()
    expect(ada.conversation('group~1')).toMatchObject({ title: 'Design', lastSeq: 1 })
  })

  it('of a first direct message make the conversation appear', async () => {
    const ada = await page('ada')
    const bob = await page('bob')
    const { id } = await Promise.all([bob.direct('ada'), settle()]).then(([conversation]) => conversation)
    expect(ada.conversation(id)).toBeUndefined()
    bob.send(id, 'psst')
    await settle()
    expect(ada.conversation(id)).toMatchObject({ kind: 'direct', members: ['ada', 'bob'] })
    expect(unread(ada, id)).toBe(1)
  })
})

describe('sending', () => {
  it('shows a message as under way until the history shows it', async () => {
    const ada = await page('ada')
    ada.send('public', 'hello')
    expect(ada.unsent('public')).toMatchObject([{ text: 'hello', state: 'sending' }])
    await settle()
    expect(ada.unsent('public')).toEqual([])
    expect(texts(ada)).toEqual(['hello'])
    expect(unread(ada)).toBe(0)
  })

  it('keeps an acknowledged message in sight while the ones before it are still missing', async () => {
    const ada = await page('ada')
    service.weather = { ...service.weather, copies: () => 0 }
    service.post('bob', 'public', 'first')
    ada.send('public', 'second')
    await settle()
    expect(texts(ada)).toEqual([])
    expect(ada.unsent('public')).toMatchObject([{ text: 'second', state: 'stored' }])
    await settle(GAP_WAIT_MS)
    expect(texts(ada)).toEqual(['first', 'second'])
    expect(ada.unsent('public')).toEqual([])
  })

  it.each(['before the service reads it', 'after the service stored it'])('sends once when the connection breaks %s', async (when) => {
    const ada = await page('ada')
    service.weather = { ...service.weather, copies: () => 0 }
    ada.send('public', 'hello')
    if (when.startsWith('after')) {
      await settle(1)
    }
    socket('ada').cut()
    service.weather = { ...service.weather, copies: () => 1 }
    await settle(1_000)
    expect(service.rooms.get('public')?.messages.map(({ text }) => text)).toEqual(['hello'])
    expect(texts(ada)).toEqual(['hello'])
    expect(ada.unsent('public')).toEqual([])
  })

  it('keeps the order of what was written without a connection', async () => {
    const ada = await page('ada')
    socket('ada').cut()
    const written = ['1', '2', '3', '4', '5']
    written.forEach((text) => ada.send('public', text))
    await settle(0)
    expect(ada.unsent('public').map(({ state }) => state)).toEqual(written.map(() => 'waiting'))
    await settle(1_000)
    expect(texts(ada)).toEqual(written)
  })

  it('does not give up a message that the functions cannot take at the moment', async () => {
    const ada = await page('ada')
    let failures = 3
    service.weather = { ...service.weather, unavailable: () => (0 < (failures -= 1) ? 'after' : undefined) }
    ada.send('public', 'one')
    ada.send('public', 'two')
    await settle(10_000)
    expect(texts(ada)).toEqual(['one', 'two'])
  })

  it('shows why a message was refused and lets a person decide', async () => {
    const ada = await page('ada')
    ada.send('public', 'forbidden')
    ada.send('public', 'allowed')
    await settle()
    expect(texts(ada)).toEqual(['allowed'])
    const [failed] = ada.unsent('public')
    expect(failed).toMatchObject({ state: 'failed', reason: 'This text is not allowed.' })
    ada.resend(failed?.key ?? '')
    expect(ada.unsent('public')).toMatchObject([{ state: 'sending' }])
    await settle()
    ada.discard(failed?.key ?? '')
    expect(ada.unsent('public')).toEqual([])
  })

  it('takes no more than a stated number of waiting messages', async () => {
    const ada = await page('ada')
    socket('ada').cut()
    for (let n = 0; n < UNSENT_MESSAGES_MAX; n += 1) {
      expect(ada.send('public', `${n}`)).toBe(true)
    }
    expect(ada.send('public', 'one more')).toBe(false)
  })

  it('carries the files that were brought for it, also over a reload of the page', async () => {
    let kept: string | null = null
    const keep = { load: () => kept, save: (text: string) => (kept = text) }
    const ada = await page('ada', 'public', keep)
    expect(ada.attach('public', [new File(['abc'], 'a.png')])).toBe(true)
    await settle()
    expect(ada.uploads('public').map(({ state }) => state)).toEqual(['ready'])
    service.weather = { ...service.weather, unavailable: () => 'before' }
    expect(ada.send('public', '')).toBe(true)
    expect(ada.uploads('public')).toEqual([])
    await settle()
    ada.stop()
    service.weather = { ...service.weather, unavailable: () => undefined }
    const again = await page('ada', 'public', keep)
    await settle()
    const [message] = again.feed('public')?.messages ?? []
    expect(message?.attachments.map(({ name }) => name)).toEqual([expect.stringMatching(/^a\.png by \/api\/attachments\?ticket=/u)])
    const url = () => again.feed('public')?.messages[0]?.attachments[0]?.url
    service.rooms.get('public')!.messages = [{ ...message!, attachments: [{ ...message!.attachments[0]!, url: '/api/attachments?ticket=new' }] }]
    await Promise.all([again.renew('public', 1), settle()])
    expect(url()).toBe('/api/attachments?ticket=new')
  })

  it('survives a reload of the page, with the same key', async () => {
    let kept: string | null = null
    const keep = { load: () => kept, save: (text: string) => (kept = text) }
    const before = await page('ada', 'public', keep)
    service.weather = { ...service.weather, copies: () => 0 }
    before.send('public', 'hello')
    await settle(1)
    before.stop() // Stored by the functions; the answer never came.
    service.weather = { ...service.weather, copies: () => 1 }
    const after = await page('ada', 'public', keep)
    await settle(1_000)
    expect(texts(after)).toEqual(['hello'])
    expect(after.unsent('public')).toEqual([])
    expect(JSON.parse(kept ?? '')).toEqual([])
  })

  it('starts with nothing when what was kept is damaged', async () => {
    for (const kept of ['{', '{}', '[null, 1, {"key":1}]', 'null']) {
      const ada = await page('ada', 'public', { load: () => kept, save: () => undefined })
      expect(ada.unsent('public')).toEqual([])
    }
  })
})

describe('reading', () => {
  it('is counted alike in all tabs of a user', async () => {
    const ada = await page('ada')
    const tab = await page('ada')
    service.post('bob', 'public', 'one')
    service.post('bob', 'public', 'two')
    await settle()
    expect([unread(ada), unread(tab)]).toEqual([2, 2])
    ada.markRead('public', 2)
    await settle()
    expect([unread(ada), unread(tab)]).toEqual([0, 0])
  })

  it('without a connection is told to the functions later', async () => {
    const ada = await page('ada')
    service.post('bob', 'public', 'one')
    await settle()
    socket('ada').cut()
    ada.markRead('public', 1)
    expect(service.rooms.get('public')?.read.get('ada')).toBeUndefined()
    await settle(1_000)
    expect(service.rooms.get('public')?.read.get('ada')).toBe(1)
  })

  it('never goes back', async () => {
    const ada = await page('ada')
    service.post('bob', 'public', 'one')
    service.post('bob', 'public', 'two')
    await settle()
    ada.markRead('public', 2)
    ada.markRead('public', 1)
    socket('ada').deliver({ type: 'read', conversation: 'public', seq: 1 })
    expect(unread(ada)).toBe(0)
  })
})

describe('groups', () => {
  it('are created, joined by invitation, and left', async () => {
    const ada = await page('ada')
    const bob = await page('bob')
    const [{ id }] = await Promise.all([ada.create('Design', ['bob']), settle()])
    expect(bob.conversation(id)).toMatchObject({ state: 'invited', title: 'Design' })
    bob.select(id)
    expect(bob.feed(id)).toBeUndefined()
    await Promise.all([bob.join(id), settle()])
    expect(bob.conversation(id)).toMatchObject({ state: 'member' })
    ada.send(id, 'welcome')
    await settle()
    expect(texts(bob, id)).toEqual(['welcome'])
    await Promise.all([ada.leave(id), settle()])
    expect(ada.conversation(id)).toBeUndefined()
    expect(bob.conversation(id)?.members).toEqual(['bob'])
  })

  it('that were left elsewhere while away are gone after the hello', async () => {
    service.room('group~1', 'group', 'Design', ['ada'])
    const ada = await page('ada')
    socket('ada').cut()
    service.rooms.get('group~1')?.members.delete('ada')
    await settle(1_000)
    expect(ada.conversation('group~1')).toBeUndefined()
  })

  it('that are left in one tab vanish in the others', async () => {
    service.room('group~1', 'group', 'Design', ['ada'])
    const ada = await page('ada')
    const tab = await page('ada')
    await Promise.all([ada.leave('group~1'), settle()])
    expect(tab.conversation('group~1')).toBeUndefined()
  })
})

it('counts a user once, however many tabs', async () => {
  const ada = await page('ada')
  await page('bob')
  await page('bob')
  expect(ada.users.filter(({ online }) => online).map(({ name }) => name)).toEqual(['ada', 'bob'])
  service.of('bob')[0]?.cut()
  await settle()
  expect(ada.isOnline('bob')).toBe(true)
})

it('finds the other user in the id of a direct conversation', () => {
  expect(directOther('direct~ada~bob', 'bob')).toBe('ada')
  expect(directOther('direct~a%7Eb~%C3%A9', 'é')).toBe('a~b')
  expect(directOther('direct~ada~bob', 'eve')).toBeUndefined()
  expect(directOther('direct~%zz~bob', 'bob')).toBeUndefined()
  expect(directOther('group~1', 'bob')).toBeUndefined()
})
