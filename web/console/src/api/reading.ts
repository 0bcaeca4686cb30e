/** Reads answers: what has another shape than agreed is a fault here, not somewhere on a page. */

/** An answer that is not what the contract says. */
export class UnexpectedAnswer extends Error {
  override readonly name = 'UnexpectedAnswer'
}

export type Properties = Readonly<Record<string, unknown>>

export function object(value: unknown, what: string): Properties {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new UnexpectedAnswer(`${what} is no object`)
  }
  return value as Properties
}

export function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) {
    throw new UnexpectedAnswer(`${what} is no list`)
  }
  return value
}

export function text(value: unknown, what: string): string {
  if (typeof value !== 'string') {
    throw new UnexpectedAnswer(`${what} is no text`)
  }
  return value
}

export function number(value: unknown, what: string): number {
  if (typeof value !== 'number') {
    throw new UnexpectedAnswer(`${what} is no number`)
  }
  return value
}

/** Reads what may be absent or null. */
export function optional<Read>(read: (value: unknown, what: string) => Read, value: unknown, what: string): Read | undefined {
  return value === undefined || value === null ? undefined : read(value, what)
}

export function texts(value: unknown, what: string): string[] {
  return list(value, what).map((item) => text(item, `an item of ${what}`))
}
