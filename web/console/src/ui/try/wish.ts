/** Which client is to be tried out. */

import { generateToken } from '../../api/tokens'
import type { ClientKind } from '../../clients/kinds'

export interface Wish {
  readonly kind: ClientKind['id']
  readonly hub: string
  readonly user: string
  readonly query: string
  readonly groups: readonly string[]
  /** Whether it may join and leave, and send to, all groups. */
  readonly mayJoin: boolean
  readonly maySend: boolean
  readonly withToken: boolean
}

/** Returns the client's token, unless it is to come without. */
export async function obtainToken(wish: Wish): Promise<string | undefined> {
  if (!wish.withToken) {
    return undefined
  }
  if (wish.kind === 'preview') {
    return generateToken(wish.hub, { door: 'Preview', user: wish.user, roles: [], groups: [] })
  }
  const roles = [...(wish.mayJoin ? ['webpubsub.joinLeaveGroup'] : []), ...(wish.maySend ? ['webpubsub.sendToGroup'] : [])]
  return generateToken(wish.hub, { door: 'Default', user: wish.user, roles, groups: wish.groups })
}
