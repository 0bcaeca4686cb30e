/** Tokens for clients. */

import { call, path } from './call'
import { object, text } from './reading'

export interface TokenWish {
  /** At which door the client will come in. */
  readonly door: 'Default' | 'Preview'
  readonly user: string
  readonly roles: readonly string[]
  readonly groups: readonly string[]
}

/** Minutes for which a token is good: it is used at once. */
const MINUTES = 5

/** Returns a token for a client of a hub. */
export async function generateToken(hub: string, { door, user, roles, groups }: TokenWish): Promise<string> {
  const query = { userId: user === '' ? undefined : user, role: roles, group: groups, minutesToExpire: MINUTES, clientType: door }
  const answer = await call('POST', `${path`/api/hubs/${hub}`}/:generateToken`, { query })
  return text(object(await answer.json(), 'the answer').token, 'token')
}
