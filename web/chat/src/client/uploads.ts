/**
 * Files on their way to a message that is not sent yet: brought one after the other, kept until the message is sent.
 */

import { ConnectionLost, RequestError } from './connection'
import { ATTACHMENTS_MAX, FILE_NAME_CHARACTERS_MAX } from './limits'
import { type Receipt, WireError, parseReceipt } from './wire'

/** What came back over HTTP, not yet checked. */
export interface Uploaded {
  readonly ok: boolean
  readonly body: unknown
}

/** Brings a file to a path of the functions and tells how far it is, from 0 to 1. Rejects when there is no answer. */
export type Bring = (path: string, file: File, progress: (share: number) => void, signal: AbortSignal) => Promise<Uploaded>

export interface Upload {
  readonly key: string
  readonly conversation: string
  readonly name: string
  /** In bytes. */
  readonly size: number
  readonly state: 'waiting' | 'uploading' | 'ready' | 'failed'
  /** How much is through, from 0 to 1. */
  readonly share: number
  /** Why it failed, as a sentence. */
  readonly reason?: string
  /** Whether it makes sense to try the same file again. */
  readonly again?: boolean
  readonly receipt?: Receipt
}

interface Ports {
  /** Returns the path to bring a file to. @throws RequestError or ConnectionLost */
  invite(conversation: string, name: string, size: number): Promise<string>
  bring: Bring
  newKey(): string
  changed(): void
}

export class Uploads {
  #entries: readonly Upload[] = []
  #byConversation = new Map<string, readonly Upload[]>()
  #files = new Map<string, File>()
  #current: { readonly key: string; readonly abort: AbortController } | undefined

  constructor(private readonly ports: Ports) {}

  /** The files for the next message in a conversation. A new array only after a change. */
  of(conversation: string): readonly Upload[] {
    let entries = this.#byConversation.get(conversation)
    if (!entries) {
      entries = this.#entries.filter((entry) => entry.conversation === conversation)
      this.#byConversation.set(conversation, entries)
    }
    return entries
  }

  /** Takes files. Returns false when they are too many for one message; then those that fit are taken. */
  add(conversation: string, files: readonly File[]): boolean {
    const room = ATTACHMENTS_MAX - this.of(conversation).length
    const added = files.slice(0, Math.max(0, room)).map((file): Upload => {
      const key = this.ports.newKey()
      this.#files.set(key, file)
      return { key, conversation, name: plainName(file.name), size: file.size, state: 'waiting', share: 0 }
    })
    this.#become([...this.#entries, ...added])
    this.#pump()
    return files.length <= room
  }

  /** Tries a failed one again. */
  retry(key: string): void {
    if (this.#entries.find((entry) => entry.key === key)?.state === 'failed') {
      this.#update(key, { state: 'waiting', share: 0 })
      this.#pump()
    }
  }

  remove(key: string): void {
    this.#files.delete(key)
    this.#become(this.#entries.filter((entry) => entry.key !== key))
    if (this.#current?.key === key) {
      this.#current.abort.abort()
    }
  }

  /** The message that they were for is on its way. */
  clear(conversation: string): void {
    this.of(conversation).forEach(({ key }) => this.remove(key))
  }

  stop(): void {
    this.#entries.forEach(({ key }) => this.remove(key))
  }

  #pump(): void {
    const next = this.#entries.find(({ state }) => state === 'waiting')
    if (next && this.#current === undefined) {
      const abort = new AbortController()
      this.#current = { key: next.key, abort }
      void this.#bring(next, abort.signal).finally(() => {
        this.#current = undefined
        this.#pump()
      })
    }
  }

  async #bring({ key, conversation, name, size }: Upload, signal: AbortSignal): Promise<void> {
    const file = this.#files.get(key)
    if (!file) {
      return
    }
    this.#update(key, { state: 'uploading' })
    try {
      const path = await this.ports.invite(conversation, name, size)
      if (signal.aborted) {
        return
      }
      const { ok, body } = await this.ports.bring(path, file, (share) => this.#update(key, { share }), signal)
      if (!ok) {
        throw refusal(body)
      }
      this.#update(key, { state: 'ready', share: 1, receipt: parseReceipt(body) })
    } catch (error) {
      const again = !(error instanceof RequestError) || error.code === 'unavailable' || error.code === 'forbidden'
      this.#update(key, { state: 'failed', reason: reason(error), again })
    }
  }

  #update(key: string, change: Partial<Upload>): void {
    this.#become(this.#entries.map((entry) => (entry.key === key ? { ...entry, ...change } : entry)))
  }

  #become(entries: readonly Upload[]): void {
    this.#entries = entries
    this.#byConversation.clear()
    this.ports.changed()
  }
}

/** Returns a name as the functions take it. */
function plainName(name: string): string {
  const plain = [...name.replace(/[/\\\p{Cc}]/gu, '_')].slice(-FILE_NAME_CHARACTERS_MAX).join('')
  return plain.trim() === '' ? 'file' : plain
}

function refusal(body: unknown): Error {
  const { code, message } = (body ?? {}) as { code?: unknown; message?: unknown }
  return typeof code === 'string' && typeof message === 'string' ? new RequestError(code, message) : new WireError('no refusal')
}

function reason(error: unknown): string {
  if (error instanceof RequestError) {
    return error.message
  }
  if (error instanceof ConnectionLost) {
    return 'There is no connection at the moment.'
  }
  return error instanceof WireError ? 'The answer of the service was not understood.' : 'The upload broke off.'
}
