/** What is connected, and what can be done with it. */

import { Refusal, type Query, call, path } from './call'
import { type Properties, list, object, optional, text, texts } from './reading'

/** Items of a page. */
const PAGE_ITEMS = 50

export interface Page<Item> {
  readonly items: readonly Item[]
  /** Behind which the next page begins, if there is one. */
  readonly next: string | undefined
}

export interface ConnectionSummary {
  readonly id: string
  readonly user: string | undefined
}

/** What decides over one permission: names stand above patterns and the word for all. */
export interface Rules {
  readonly all: boolean
  readonly groups: readonly string[]
  readonly patterns: readonly string[]
  readonly denied: readonly string[]
}

export interface ConnectionDetails extends ConnectionSummary {
  readonly groups: readonly string[]
  readonly dialect: string
  readonly subprotocol: string | undefined
  /** Of a client of the preview, without its token. */
  readonly query: string | undefined
  /** Of a client of Web PubSub. */
  readonly permissions: Readonly<Record<Permission, Rules>> | undefined
  /** All that the service says, what this page does not know included. */
  readonly all: Properties
}

/** Whom a message or an order concerns. */
export type Target =
  | { readonly kind: 'hub' }
  | { readonly kind: 'group' | 'user' | 'connection'; readonly name: string }

export type NameKind = 'users' | 'groups'
export type Permission = 'joinLeaveGroup' | 'sendToGroup'

export async function listHubs(after: string | undefined, signal?: AbortSignal): Promise<Page<string>> {
  return readPage(await get('/admin/v1/hubs', { limit: PAGE_ITEMS, after }, signal), readName)
}

export async function listNames(hub: string, kind: NameKind, after: string | undefined, signal?: AbortSignal): Promise<Page<string>> {
  return readPage(await get(`${path`/admin/v1/hubs/${hub}/`}${kind}`, { limit: PAGE_ITEMS, after }, signal), readName)
}

/** Lists the connections of a hub, of a user or of a group. */
export async function listConnections(hub: string, of: Target, after: string | undefined, signal?: AbortSignal): Promise<Page<ConnectionSummary>> {
  const whose = of.kind === 'hub' || of.kind === 'connection' ? '' : path`/${`${of.kind}s`}/${of.name}`
  return readPage(await get(`${path`/admin/v1/hubs/${hub}`}${whose}/connections`, { limit: PAGE_ITEMS, after }, signal), readSummary)
}

export async function fetchConnection(hub: string, id: string, signal?: AbortSignal): Promise<ConnectionDetails> {
  return readDetails(await get(path`/admin/v1/hubs/${hub}/connections/${id}`, {}, signal))
}

/** Returns whether anybody is there. */
export async function exists(hub: string, target: Target): Promise<boolean> {
  return check(below(hub, target))
}

export interface Message {
  readonly kind: 'text' | 'json'
  readonly content: string
}

export async function send(hub: string, target: Target, { kind, content }: Message): Promise<void> {
  const type = kind === 'json' ? 'application/json' : 'text/plain; charset=utf-8'
  await call('POST', `${below(hub, target)}/:send`, { body: { type, content } })
}

export async function close(hub: string, id: string, reason: string): Promise<void> {
  await call('DELETE', below(hub, { kind: 'connection', name: id }), { query: { reason: reason === '' ? undefined : reason } })
}

export async function joinGroup(hub: string, group: string, id: string): Promise<void> {
  await call('PUT', path`/api/hubs/${hub}/groups/${group}/connections/${id}`)
}

export async function leaveGroup(hub: string, group: string, id: string): Promise<void> {
  await call('DELETE', path`/api/hubs/${hub}/groups/${group}/connections/${id}`)
}

/** `group`: the one that is meant, or all. */
export async function grant(hub: string, permission: Permission, id: string, group: string | undefined): Promise<void> {
  await call('PUT', path`/api/hubs/${hub}/permissions/${permission}/connections/${id}`, { query: { targetName: group } })
}

export async function deny(hub: string, permission: Permission, id: string, group: string | undefined): Promise<void> {
  await call('DELETE', path`/api/hubs/${hub}/permissions/${permission}/connections/${id}`, { query: { targetName: group } })
}

export async function hasPermission(hub: string, permission: Permission, id: string, group: string | undefined): Promise<boolean> {
  return check(path`/api/hubs/${hub}/permissions/${permission}/connections/${id}`, { targetName: group })
}

function below(hub: string, target: Target): string {
  return target.kind === 'hub' ? path`/api/hubs/${hub}` : path`/api/hubs/${hub}/${`${target.kind}s`}/${target.name}`
}

async function check(url: string, query: Query = {}): Promise<boolean> {
  try {
    await call('HEAD', url, { query })
    return true
  } catch (error) {
    if (error instanceof Refusal && error.status === 404) {
      return false
    }
    throw error
  }
}

async function get(url: string, query: Query, signal?: AbortSignal): Promise<unknown> {
  return (await call('GET', url, signal ? { query, signal } : { query })).json()
}

export function readPage<Item>(value: unknown, read: (item: unknown) => Item): Page<Item> {
  const document = object(value, 'a page')
  const next = optional(text, document.next, 'next')
  const after = next === undefined ? undefined : new URL(next, 'http://service').searchParams.get('after')
  return { items: list(document.items, 'items').map(read), next: after ?? undefined }
}

function readName(value: unknown): string {
  return text(object(value, 'an item').name, 'name')
}

function readSummary(value: unknown): ConnectionSummary {
  const item = object(value, 'a connection')
  return { id: text(item.id, 'id'), user: optional(text, item.user, 'user') }
}

function readDetails(value: unknown): ConnectionDetails {
  const all = object(value, 'a connection')
  return {
    ...readSummary(all),
    groups: texts(all.groups, 'groups'),
    dialect: text(all.dialect, 'dialect'),
    subprotocol: optional(text, all.subprotocol, 'subprotocol'),
    query: optional(text, all.query, 'query'),
    permissions: optional(readPermissions, all.permissions, 'permissions'),
    all,
  }
}

function readPermissions(value: unknown, what: string): Record<Permission, Rules> {
  const { joinLeaveGroup, sendToGroup } = object(value, what)
  return { joinLeaveGroup: readRules(joinLeaveGroup, 'joinLeaveGroup'), sendToGroup: readRules(sendToGroup, 'sendToGroup') }
}

function readRules(value: unknown, what: string): Rules {
  const { all, groups, patterns, denied } = object(value, what)
  return { all: all === true, groups: texts(groups, 'groups'), patterns: texts(patterns, 'patterns'), denied: texts(denied, 'denied') }
}
