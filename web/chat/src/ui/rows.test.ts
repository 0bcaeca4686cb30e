import { expect, it } from 'vitest'
import type { Unsent } from '../client/outbox'
import type { Message } from '../client/wire'
import { dayText, rows } from './rows'

function message(seq: number, user: string, time: string): Message {
  return { id: `m${seq}`, conversation: 'public', seq, user, text: `${seq}`, time: new Date(`2026-01-${time}`).toISOString(), key: `k${seq}`, attachments: [] }
}

function shown(messages: Message[], unsent: Unsent[] = [], unreadAfter?: number): string[] {
  return rows(messages, unsent, 'ada', unreadAfter).map((row) => {
    switch (row.kind) {
      case 'day':
        return `day ${row.day.getDate()}`
      case 'unread':
        return 'unread'
      case 'message':
        return `${row.head ? `${row.message.user}: ` : ''}${row.message.text}`
      case 'unsent':
        return `${row.head ? 'ada: ' : ''}${row.unsent.text} (${row.unsent.state})`
    }
  })
}

it('groups what one user says within five minutes, and begins again each day', () => {
  expect(
    shown([
      message(1, 'bob', '01T23:50:00'),
      message(2, 'bob', '01T23:54:00'),
      message(3, 'ada', '01T23:55:00'),
      message(4, 'bob', '01T23:56:00'),
      message(5, 'bob', '01T23:59:59'),
      message(6, 'bob', '02T00:00:01'),
      message(7, 'bob', '02T00:05:02'),
    ]),
  ).toEqual(['day 1', 'bob: 1', '2', 'ada: 3', 'bob: 4', '5', 'day 2', 'bob: 6', 'bob: 7'])
})

it('marks the first unread message of somebody else, after its day', () => {
  const messages = [message(1, 'bob', '01T10:00:00'), message(2, 'ada', '01T10:01:00'), message(3, 'bob', '02T10:01:00'), message(4, 'bob', '02T10:02:00')]
  expect(shown(messages, [], 1)).toEqual(['day 1', 'bob: 1', 'ada: 2', 'day 2', 'unread', 'bob: 3', '4'])
  expect(shown(messages, [], 3)).toEqual(['day 1', 'bob: 1', 'ada: 2', 'day 2', 'bob: 3', 'unread', 'bob: 4'])
  expect(shown(messages, [], 4)).not.toContain('unread')
})

it('shows what is under way last, with the key that it keeps', () => {
  const unsent: Unsent = { key: 'k2', conversation: 'public', text: '2', attachments: [], time: Date.parse('2026-01-01T10:01:00'), state: 'sending' }
  const before = message(1, 'ada', '01T10:00:00')
  expect(shown([before], [unsent])).toEqual(['day 1', 'ada: 1', '2 (sending)'])
  const keys = (made: ReturnType<typeof rows>) => made.map(({ key }) => key)
  expect(keys(rows([before], [unsent], 'ada', undefined))).toEqual(keys(rows([before, message(2, 'ada', '01T10:01:00')], [], 'ada', undefined)))
})

it('names days', () => {
  const today = new Date(2026, 2, 1, 0, 30)
  expect(dayText(new Date(2026, 2, 1, 23), today)).toBe('Today')
  expect(dayText(new Date(2026, 1, 28, 1), today)).toBe('Yesterday')
  expect(dayText(new Date(2026, 1, 27), today)).not.toContain('2026')
  expect(dayText(new Date(2025, 1, 27), today)).toContain('2025')
})
