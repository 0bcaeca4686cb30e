/** Tokens for clients. */

import { call, path } from './call'
import { object, text } from './reading'

export interface TokenWish {
  readonly user: string
  readonly roles: readonly string[]
  readonly groups: readonly string[]
}

/** Minutes for which a token is good: it is used at once. */
const MINUTES = 5

/** Returns a token for a client of a hub's Web PubSub endpoint. */
export async function generateToken(hub: string, { user, roles, groups }: TokenWish): Promise<string> {
  const query = { userId: user === '' ? undefined : user, role: roles, group: groups, minutesToExpire: MINUTES }
  const answer = await call('POST', `${path`/api/hubs/${hub}`}/:generateToken`, { query })
  return text(object(await answer.json(), 'the answer').token, 'token')
}
