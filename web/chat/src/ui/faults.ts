/** Sentences for people. */

import { ConnectionLost, type Fault, RequestError } from '../client/connection'

/** Returns why a request failed. */
export function sentence(error: unknown): string {
  if (error instanceof RequestError) {
    return error.message
  }
  if (error instanceof ConnectionLost) {
    return 'There is no connection at the moment. Try again when it is back.'
  }
  console.error(error)
  return 'The answer of the service was not understood.'
}

/** Returns why there is no connection. */
export function faultText(fault: Fault): string {
  switch (fault) {
    case 'unreachable':
      return 'The server cannot be reached.'
    case 'refused':
      return 'The service did not accept the connection.'
    case 'lost':
      return 'The connection was lost.'
  }
}

/** Returns when the next try is, for people: “in 4 s”, “now”. */
export function untilText(retryAt: number, now: number): string {
  const seconds = Math.ceil((retryAt - now) / 1_000)
  return seconds <= 0 ? 'now' : `in ${seconds} s`
}
