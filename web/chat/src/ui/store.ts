/** A running chat as the components see it: everything here is reactive. */

import { type ComputedRef, type InjectionKey, computed, inject, onScopeDispose, provide, reactive, ref, shallowRef } from 'vue'
import { type Chat, PUBLIC } from '../client/chat'
import type { ConnectionState } from '../client/connection'
import type { Conversation, User } from '../client/wire'
import { keptInTab } from './browser'

/** A conversation as the list shows it. */
export interface Listed {
  readonly conversation: Conversation
  readonly id: string
  readonly title: string
  readonly unread: number
  /** The other user of a direct conversation. */
  readonly other: string | undefined
}

export interface Store {
  readonly chat: Chat
  readonly user: string
  readonly connection: ComputedRef<ConnectionState>
  readonly greeted: ComputedRef<boolean>
  readonly rooms: ComputedRef<Listed[]>
  readonly directs: ComputedRef<Listed[]>
  /** Other users, those online first. */
  readonly others: ComputedRef<User[]>
  /** Messages unread and invitations open. */
  readonly waiting: ComputedRef<number>
  /** Unsent texts by conversation. */
  readonly drafts: Record<string, string>
  /** The time, to the second while a connection is awaited, else to the minute. */
  readonly now: ComputedRef<number>
  listed(id: string): Listed | undefined
  /** Makes a computed value of something that the chat tells. */
  from<T>(get: () => T): ComputedRef<T>
  keepDrafts(): void
}

const KEY: InjectionKey<Store> = Symbol('chat')

export function provideStore(store: Store): void {
  provide(KEY, store)
}

/** Returns the store that a component above provides. */
export function useStore(): Store {
  const store = inject(KEY)
  if (!store) {
    throw new Error('no chat is provided')
  }
  return store
}

const byName = new Intl.Collator(undefined, { sensitivity: 'base', numeric: true })

/** Makes the store of a chat. It lives as long as the surrounding scope. */
export function makeStore(chat: Chat): Store {
  const version = shallowRef(0)
  onScopeDispose(chat.onChange(() => (version.value += 1)))

  function from<T>(get: () => T): ComputedRef<T> {
    return computed(() => {
      void version.value
      return get()
    })
  }

  const now = ref(Date.now())
  const clock = setInterval(() => {
    const time = Date.now()
    if (chat.connection.kind === 'waiting' || 60_000 <= time - now.value || new Date(time).getDate() !== new Date(now.value).getDate()) {
      now.value = time
    }
  }, 500)
  onScopeDispose(() => clearInterval(clock))

  const kept = keptInTab(`hookwire.chat.drafts.${chat.user}`)
  const drafts = reactive(parseDrafts(kept.load()))
  const users = from(() => chat.users)
  const all = from(() => chat.conversations.map((conversation) => list(chat, conversation)))
  return {
    chat,
    user: chat.user,
    connection: from(() => chat.connection),
    greeted: from(() => chat.greeted),
    rooms: computed(() => all.value.filter(({ conversation }) => conversation.kind !== 'direct').sort(byRank)),
    directs: computed(() => all.value.filter(({ conversation }) => conversation.kind === 'direct').sort(byTitle)),
    others: computed(() =>
      users.value
        .filter(({ name }) => name !== chat.user)
        .sort((a, b) => Number(b.online) - Number(a.online) || byName.compare(a.name, b.name)),
    ),
    waiting: computed(() =>
      all.value.reduce((sum, { unread, conversation }) => sum + (conversation.state === 'invited' ? 1 : unread), 0),
    ),
    drafts,
    now: computed(() => now.value),
    listed: (id) => all.value.find((each) => each.id === id),
    from,
    keepDrafts: () => kept.save(JSON.stringify(drafts)),
  }
}

function list(chat: Chat, conversation: Conversation): Listed {
  const { id, kind, title, members } = conversation
  const other = kind === 'direct' ? (members.find((name) => name !== chat.user) ?? title) : undefined
  return { conversation, id, title: other ?? (title || 'Untitled'), unread: chat.unread(conversation), other }
}

/** The public room first, then by title. */
function byRank(a: Listed, b: Listed): number {
  return Number(b.id === PUBLIC) - Number(a.id === PUBLIC) || byTitle(a, b)
}

function byTitle(a: Listed, b: Listed): number {
  return byName.compare(a.title, b.title) || byName.compare(a.id, b.id)
}

function parseDrafts(text: string | null): Record<string, string> {
  let drafts: unknown
  try {
    drafts = JSON.parse(text ?? '{}')
  } catch {
    return {}
  }
  if (typeof drafts !== 'object' || drafts === null) {
    return {}
  }
  return Object.fromEntries(Object.entries(drafts).filter(([, draft]) => typeof draft === 'string' && draft !== ''))
}
