/** Calls of the service by the session's cookie, and what can be said about those that fail. */

/** The service takes the cookie from requests with this header only, which no other origin can send. */
const HEADERS = { 'X-Hookwire-Console': '1' } as const

/** What is wrong at one place of a document. */
export interface Fault {
  /** Such as `eventHandlers[0].urlTemplate`. */
  readonly path: string
  readonly message: string
}

/** The service refused a call. */
export class Refusal extends Error {
  override readonly name = 'Refusal'

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly faults: readonly Fault[],
    /** Seconds until another try makes sense, if the service says so. */
    readonly retryAfter: number | undefined,
  ) {
    super(message)
  }
}

/** The service did not answer. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable'
}

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>

export interface Call {
  readonly query?: Query
  /** Sent as JSON. */
  readonly json?: unknown
  /** Sent as it is; `type` says what it is. */
  readonly body?: { readonly type: string; readonly content: BodyInit }
  readonly signal?: AbortSignal
}

type Method = 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'

let lost: () => void = () => undefined

/** Sets what happens when the service no longer knows the session. */
export function onSessionLost(listener: () => void): void {
  lost = listener
}

/** Calls the service and returns its answer, whose status is a success. Rejects with {@link Refusal} or {@link Unreachable}. */
export async function call(method: Method, path: string, { query, json, body, signal }: Call = {}): Promise<Response> {
  const answer = await send(method, path + search(query), { json, body, signal })
  if (answer.ok) {
    return answer
  }
  if (answer.status === 401) {
    lost()
  }
  throw await refusal(answer)
}

/** The same for calls that open a session: a 401 is about the key. */
export async function callWithoutSession(method: Method, path: string, options: Call = {}): Promise<Response> {
  const answer = await send(method, path, options)
  if (!answer.ok) {
    throw await refusal(answer)
  }
  return answer
}

/** Returns a path with its names escaped: of `path`hubs/${hub}`` only the literal slashes divide. */
export function path(parts: TemplateStringsArray, ...names: readonly string[]): string {
  return String.raw({ raw: parts }, ...names.map(encodeURIComponent))
}

export function search(query: Query = {}): string {
  const pairs = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    for (const item of Array.isArray(value) ? (value as readonly string[]) : [value]) {
      if (item !== undefined) {
        pairs.append(name, String(item))
      }
    }
  }
  const encoded = pairs.toString()
  return encoded === '' ? '' : `?${encoded}`
}

async function send(method: Method, url: string, { json, body, signal }: { [Key in keyof Call]: Call[Key] | undefined }): Promise<Response> {
  const content = json === undefined ? body : { type: 'application/json', content: JSON.stringify(json) }
  try {
    return await fetch(url, {
      method,
      cache: 'no-store',
      credentials: 'same-origin',
      headers: content ? { ...HEADERS, 'Content-Type': content.type } : HEADERS,
      body: content?.content ?? null,
      signal: signal ?? null,
    })
  } catch (error) {
    if (signal?.aborted) {
      throw error
    }
    throw new Unreachable('The service does not answer. Is it running?', { cause: error })
  }
}

async function refusal(answer: Response): Promise<Refusal> {
  const document = parse(await answer.text().catch(() => ''))
  const message = typeof document.message === 'string' && document.message !== '' ? document.message : STATUS[answer.status]
  return new Refusal(
    answer.status,
    typeof document.code === 'string' ? document.code : '',
    message ?? `The service answered ${answer.status}.`,
    Array.isArray(document.faults) ? document.faults.filter(isFault) : [],
    seconds(answer.headers.get('Retry-After')),
  )
}

function parse(content: string): Record<string, unknown> {
  try {
    const document: unknown = JSON.parse(content)
    return typeof document === 'object' && document !== null ? (document as Record<string, unknown>) : {}
  } catch {
    // An answer without a document: HEAD has none, and a proxy may answer in the service's place.
    return {}
  }
}

export function isFault(value: unknown): value is Fault {
  const fault = value as Fault | null
  return typeof fault === 'object' && typeof fault?.path === 'string' && typeof fault.message === 'string'
}

function seconds(header: string | null): number | undefined {
  return header !== null && /^\d+$/u.test(header) ? Number(header) : undefined
}

/** What answers mean that say nothing themselves. */
const STATUS: Readonly<Record<number, string>> = {
  401: 'The session has ended. Sign in again.',
  403: 'This session may not do that.',
  404: 'There is no such thing (any more).',
  413: 'That is too large for the service.',
  429: 'The service is asked too often.',
  502: 'The service behind the proxy does not answer.',
  503: 'The service is shutting down or overloaded.',
}
