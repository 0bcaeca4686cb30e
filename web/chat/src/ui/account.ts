/**
 * Who uses this tab. The tab keeps its own name; a new tab takes the last name used in the browser. Signing out ends
 * every tab of that name.
 */

import { read, write } from '../../../shared/storage'

const NAME = 'hookwire.chat.name'

/** Returns the name to go on with, or undefined when somebody has to say one. */
export function rememberedName(): string | undefined {
  return read(sessionStorage, NAME) ?? read(localStorage, NAME) ?? undefined
}

export function rememberName(name: string): void {
  write(sessionStorage, NAME, name)
  write(localStorage, NAME, name)
}

export function forgetName(name: string): void {
  write(sessionStorage, NAME, null)
  if (read(localStorage, NAME) === name) {
    write(localStorage, NAME, null)
  }
}

/** Calls `signedOut` with the name when another tab signs out. */
export function onForgotten(signedOut: (name: string) => void): void {
  addEventListener('storage', ({ key, oldValue, newValue }) => {
    if (key === NAME && newValue === null && oldValue !== null) {
      signedOut(oldValue)
    }
  })
}
