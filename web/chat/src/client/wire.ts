/**
 * Frames between the page and the functions: types, and the one place where text from outside becomes a checked value.
 *
 * A frame of an unknown type is not an error (a newer service may push more); a known type with a wrong field is.
 */

export interface Message {
  readonly id: string
  readonly conversation: string
  /** 1, 2, 3 … within the conversation. */
  readonly seq: number
  readonly user: string
  readonly text: string
  /** RFC 3339, UTC. */
  readonly time: string
  /** Chosen by the sending page: the same key is the same message. */
  readonly key: string
  readonly attachments: readonly Attachment[]
}

/** What is known of a file before it hangs on a message. */
export interface FileInfo {
  readonly name: string
  /** The media type; of a picture only when it is one that may be shown. */
  readonly type: string
  /** In bytes. */
  readonly size: number
}

export interface Attachment extends FileInfo {
  readonly id: string
  /** A path of the functions, good for an hour. */
  readonly url: string
}

/** The proof that a file was brought. */
export interface Receipt extends FileInfo {
  readonly receipt: string
}

export type ConversationKind = 'public' | 'direct' | 'group'

export interface Conversation {
  readonly id: string
  readonly kind: ConversationKind
  readonly title: string
  /** Empty for the public room, which has everybody. */
  readonly members: readonly string[]
  readonly invited: readonly string[]
  readonly state: 'member' | 'invited'
  readonly lastSeq: number
  readonly readSeq: number
}

export interface User {
  readonly name: string
  readonly online: boolean
}

/** What an `ok` carries besides `type` and `re`, not yet checked. */
export type Body = Readonly<Record<string, unknown>>

export type Answer =
  | { readonly type: 'ok'; readonly re: number; readonly body: Body }
  | { readonly type: 'error'; readonly re: number; readonly code: string; readonly message: string }

export type Push =
  | { readonly type: 'message'; readonly message: Message }
  | { readonly type: 'presence'; readonly user: string; readonly online: boolean }
  | { readonly type: 'read'; readonly conversation: string; readonly seq: number }
  | { readonly type: 'conversation'; readonly conversation: Conversation }
  | { readonly type: 'left'; readonly conversation: string }

export interface Hello {
  readonly user: string
  readonly conversations: readonly Conversation[]
  readonly users: readonly User[]
}

export interface Page {
  /** Ascending by `seq`, each once. */
  readonly messages: readonly Message[]
  readonly more: boolean
}

export interface Endpoint {
  readonly url: string
  readonly subprotocol: string
}

/** Nothing else may stand where the page loads or links to. */
const ATTACHMENT_URL = /^\/api\/attachments\?[\w.=-]+$/u

/** Something from outside does not have the promised shape. */
export class WireError extends Error {
  override name = 'WireError'
}

/**
 * Returns the frame, or undefined when its type is unknown.
 *
 * @throws WireError when the text is not JSON or a field is missing or of the wrong type.
 */
export function parseFrame(text: string): Answer | Push | undefined {
  const frame = record(parseJson(text), 'frame')
  switch (frame.type) {
    case 'ok':
      return { type: 'ok', re: count(frame.re, 're'), body: frame }
    case 'error':
      return {
        type: 'error',
        re: count(frame.re, 're'),
        code: string(frame.code, 'code'),
        message: string(frame.message, 'message'),
      }
    case 'message':
      return { type: 'message', message: parseMessage(frame.message) }
    case 'presence':
      return { type: 'presence', user: string(frame.user, 'user'), online: bool(frame.online, 'online') }
    case 'read':
      return { type: 'read', conversation: string(frame.conversation, 'conversation'), seq: count(frame.seq, 'seq') }
    case 'conversation':
      return { type: 'conversation', conversation: parseConversation(frame.conversation) }
    case 'left':
      return { type: 'left', conversation: string(frame.conversation, 'conversation') }
    default:
      return undefined
  }
}

/** @throws WireError */
export function parseHello(body: Body): Hello {
  return {
    user: string(body.user, 'user'),
    conversations: array(body.conversations, 'conversations').map(parseConversation),
    users: array(body.users, 'users').map((value) => {
      const user = record(value, 'user')
      return { name: string(user.name, 'name'), online: bool(user.online, 'online') }
    }),
  }
}

/** @throws WireError also when a message belongs to another conversation. */
export function parsePage(body: Body, conversation: string): Page {
  const bySeq = new Map<number, Message>()
  for (const value of array(body.messages, 'messages')) {
    const message = parseMessage(value)
    if (message.conversation !== conversation) {
      throw new WireError(`a message of ${message.conversation} in the history of ${conversation}`)
    }
    bySeq.set(message.seq, message)
  }
  const messages = [...bySeq.values()].sort((a, b) => a.seq - b.seq)
  return { messages, more: bool(body.more, 'more') }
}

/** @throws WireError */
export function parseMessage(value: unknown): Message {
  const message = record(value, 'message')
  const seq = count(message.seq, 'seq')
  if (seq < 1) {
    throw new WireError('seq counts from 1')
  }
  return {
    id: string(message.id, 'id'),
    conversation: string(message.conversation, 'conversation'),
    seq,
    user: string(message.user, 'user'),
    text: string(message.text, 'text'),
    time: time(message.time),
    key: string(message.key, 'key'),
    attachments: message.attachments === undefined ? [] : array(message.attachments, 'attachments').map(parseAttachment),
  }
}

function parseAttachment(value: unknown): Attachment {
  const attachment = record(value, 'attachment')
  const url = string(attachment.url, 'url')
  if (!ATTACHMENT_URL.test(url)) {
    throw new WireError('url is not one of an attachment')
  }
  return { ...parseFileInfo(attachment), id: string(attachment.id, 'id'), url }
}

/** @throws WireError */
export function parseReceipt(value: unknown): Receipt {
  const { receipt, attachment } = record(value, 'receipt')
  return { ...parseFileInfo(record(attachment, 'attachment')), receipt: string(receipt, 'receipt') }
}

/** Returns the path that a file is to be brought to. @throws WireError */
export function parseInvitation({ upload }: Body): string {
  const path = string(upload, 'upload')
  if (!ATTACHMENT_URL.test(path)) {
    throw new WireError('upload is not a path of attachments')
  }
  return path
}

function parseFileInfo(file: Record<string, unknown>): FileInfo {
  return { name: string(file.name, 'name'), type: string(file.type, 'type'), size: count(file.size, 'size') }
}

/** @throws WireError */
export function parseConversation(value: unknown): Conversation {
  const conversation = record(value, 'conversation')
  const { kind, state } = conversation
  if (kind !== 'public' && kind !== 'direct' && kind !== 'group') {
    throw new WireError('kind is none of public, direct, group')
  }
  if (state !== 'member' && state !== 'invited') {
    throw new WireError('state is neither member nor invited')
  }
  return {
    id: string(conversation.id, 'id'),
    kind,
    title: string(conversation.title, 'title'),
    members: names(conversation.members, 'members'),
    invited: names(conversation.invited, 'invited'),
    state,
    lastSeq: count(conversation.lastSeq, 'lastSeq'),
    readSeq: count(conversation.readSeq, 'readSeq'),
  }
}

/** @throws WireError also when the URL is not one of a WebSocket. */
export function parseEndpoint(value: unknown): Endpoint {
  const endpoint = record(value, 'endpoint')
  const url = string(endpoint.url, 'url')
  if (!URL.canParse(url) || !['ws:', 'wss:'].includes(new URL(url).protocol)) {
    throw new WireError('url is not a WebSocket URL')
  }
  return { url, subprotocol: string(endpoint.subprotocol, 'subprotocol') }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new WireError('not JSON', { cause: error })
  }
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new WireError(`${what} is not an object`)
  }
  return value as Record<string, unknown>
}

function array(value: unknown, what: string): unknown[] {
  if (!Array.isArray(value)) {
    throw new WireError(`${what} is not a list`)
  }
  return value
}

function names(value: unknown, what: string): string[] {
  return value === undefined || value === null ? [] : array(value, what).map((name) => string(name, what))
}

function string(value: unknown, what: string): string {
  if (typeof value !== 'string') {
    throw new WireError(`${what} is not a text`)
  }
  return value
}

function bool(value: unknown, what: string): boolean {
  if (typeof value !== 'boolean') {
    throw new WireError(`${what} is neither true nor false`)
  }
  return value
}

function count(value: unknown, what: string): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new WireError(`${what} is not a whole number`)
  }
  return value
}

function time(value: unknown): string {
  const text = string(value, 'time')
  if (Number.isNaN(Date.parse(text))) {
    throw new WireError('time is not a date')
  }
  return text
}
