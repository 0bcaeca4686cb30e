/** Sentences for people about what went wrong. */

import { Refusal, Unreachable } from './call'
import { UnexpectedAnswer } from './reading'

/** Returns a sentence about an error. */
export function sentence(error: unknown): string {
  if (error instanceof Refusal) {
    const again = error.retryAfter === undefined ? '' : ` Try again in ${error.retryAfter} s.`
    return ended(capital(error.message)) + again
  }
  if (error instanceof Unreachable) {
    return error.message
  }
  if (error instanceof UnexpectedAnswer) {
    return `The answer of the service was not understood: ${error.message}.`
  }
  console.error(error)
  return 'The page failed. The browser’s console says more.'
}

export function capital(words: string): string {
  return words.charAt(0).toUpperCase() + words.slice(1)
}

function ended(words: string): string {
  return /[.!?…]$/u.test(words) ? words : `${words}.`
}
