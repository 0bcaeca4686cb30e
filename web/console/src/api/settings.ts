/** Which upstream gets which event: reading, checking, storing. */

import { type Fault, call, isFault, path } from './call'
import { type Properties, list, number, object, optional, text, texts } from './reading'

/** A template of the preview. */
export interface Template {
  readonly hubPattern: string
  readonly categoryPattern: string
  readonly eventPattern: string
  readonly urlTemplate: string
}

/** By what an event handler knows the service, beside the signature. Secrets never come from the service. */
export interface HandlerAuth {
  readonly type: string
  readonly file?: string
  readonly tokenUrl?: string
  readonly clientId?: string
  readonly clientSecret?: string
  readonly scope?: string
}

/** An event handler of Web PubSub. Properties that the page does not know are kept as they came. */
export interface EventHandler extends Properties {
  readonly urlTemplate: string
  readonly userEventPattern: string
  readonly systemEvents: readonly string[]
  readonly timeoutSeconds?: number
  readonly auth?: HandlerAuth
}

/** A receiver of copies. */
export interface EventListener extends Properties {
  readonly urlTemplate: string
  readonly userEventPattern: string
  readonly systemEvents: readonly string[]
}

export interface HubSettings extends Properties {
  readonly anonymousConnect: string
  readonly eventHandlers: readonly EventHandler[]
  readonly eventListeners: readonly EventListener[]
}

/** Where the settings in effect come from. */
export type Source = 'file' | 'stored' | 'defaults'

/** What would get an event by settings that are not stored yet. */
export type Draft = { readonly templates: readonly Template[] } | { readonly eventHandlers: readonly EventHandler[] }

/** An event whose receiver is asked for. */
export interface Question {
  readonly dialect: 'preview' | 'webPubSub'
  readonly hub: string
  readonly category?: string
  readonly type?: 'user' | 'system'
  readonly event: string
}

export type Match =
  | { readonly index: number; readonly url: string }
  | { readonly index: undefined; readonly reason: string }

export async function fetchTemplates(): Promise<Template[]> {
  return readTemplates(await (await call('GET', '/manage/v1/ws/upstream')).json())
}

export async function storeTemplates(templates: readonly Template[]): Promise<void> {
  await call('POST', '/manage/v1/ws/upstream', { json: { templates } })
}

export async function fetchHubSettings(hub: string): Promise<{ source: Source; settings: HubSettings }> {
  return readHubSettings(await (await call('GET', path`/admin/v1/hubs/${hub}/settings`)).json())
}

export async function storeHubSettings(hub: string, settings: HubSettings): Promise<void> {
  await call('PUT', path`/admin/v1/hubs/${hub}/settings`, { json: settings })
}

/** Goes back to what the configuration file says. */
export async function resetHubSettings(hub: string): Promise<void> {
  await call('DELETE', path`/admin/v1/hubs/${hub}/settings`)
}

/** Returns what is wrong with settings. Those of a hub name it beside them, so that secrets may be left out. */
export async function validate(draft: Properties, signal: AbortSignal): Promise<readonly Fault[]> {
  const answer = await call('POST', '/admin/v1/validate', { json: draft, signal })
  return list(object(await answer.json(), 'the answer').faults, 'faults').filter(isFault)
}

export async function match(question: Question, draft: Draft, signal: AbortSignal): Promise<Match> {
  const answer = object(await (await call('POST', '/admin/v1/match', { json: { ...question, draft }, signal })).json(), 'the answer')
  const index = optional(number, answer.index, 'index')
  return index === undefined
    ? { index, reason: optional(text, answer.reason, 'reason') ?? 'Nobody would get it.' }
    : { index, url: text(answer.url, 'url') }
}

export function readTemplates(value: unknown): Template[] {
  return list(object(value, 'the settings').templates, 'templates').map((item) => {
    const template = object(item, 'a template')
    const pattern = (name: string) => optional(text, template[name], name) ?? '*'
    return {
      hubPattern: pattern('hubPattern'),
      categoryPattern: pattern('categoryPattern'),
      eventPattern: pattern('eventPattern'),
      urlTemplate: text(template.urlTemplate, 'urlTemplate'),
    }
  })
}

export function readHubSettings(value: unknown): { source: Source; settings: HubSettings } {
  const { source, ...rest } = object(value, 'the settings')
  return {
    source: source === 'file' || source === 'stored' ? source : 'defaults',
    settings: {
      ...rest,
      anonymousConnect: optional(text, rest.anonymousConnect, 'anonymousConnect') ?? 'deny',
      eventHandlers: (optional(list, rest.eventHandlers, 'eventHandlers') ?? []).map((item) => {
        const handler = object(item, 'an event handler')
        return { ...handler, ...readReceiver(handler) }
      }),
      eventListeners: (optional(list, rest.eventListeners, 'eventListeners') ?? []).map((item) => {
        const listener = object(item, 'an event listener')
        return { ...listener, ...readReceiver(listener) }
      }),
    },
  }
}

/** Reads what handlers and listeners have in common. An absent pattern takes no event. */
function readReceiver(from: Properties): { urlTemplate: string; userEventPattern: string; systemEvents: string[] } {
  return {
    urlTemplate: text(from.urlTemplate, 'urlTemplate'),
    userEventPattern: optional(text, from.userEventPattern, 'userEventPattern') ?? '',
    systemEvents: optional(texts, from.systemEvents, 'systemEvents') ?? [],
  }
}
