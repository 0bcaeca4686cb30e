/** Signing in and out. The session is a cookie that no script can read. */

import { Refusal, callWithoutSession } from './call'

export async function logIn(key: string): Promise<void> {
  await callWithoutSession('POST', '/console/api/login', { json: { key } })
}

export async function logOut(): Promise<void> {
  await callWithoutSession('POST', '/console/api/logout')
}

/** Returns whether there is a session. */
export async function hasSession(): Promise<boolean> {
  try {
    await callWithoutSession('GET', '/console/api/session')
    return true
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) {
      return false
    }
    throw error
  }
}
