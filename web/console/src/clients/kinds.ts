/** The kinds of clients that the service knows. */

export interface ClientKind {
  readonly id: 'preview' | 'simple' | 'json' | 'reliable' | 'protobuf'
  readonly title: string
  readonly about: string
  /** What is offered in the handshake. */
  readonly subprotocol: string | undefined
  /** How what the client says is written. */
  readonly form: 'raw' | 'json' | 'protobuf'
  readonly endpoint: '/ws/client' | '/client'
}

export const KINDS: readonly ClientKind[] = [
  {
    id: 'preview',
    title: 'Preview client',
    about: 'Frames go to the upstream as they are. The upstream or the token names the user.',
    subprotocol: undefined,
    form: 'raw',
    endpoint: '/ws/client',
  },
  {
    id: 'simple',
    title: 'Web PubSub, no subprotocol',
    about: 'Each frame is the event “message”, as it is.',
    subprotocol: undefined,
    form: 'raw',
    endpoint: '/client',
  },
  {
    id: 'json',
    title: 'json.webpubsub.azure.v1',
    about: 'Groups, events and acknowledgements as JSON.',
    subprotocol: 'json.webpubsub.azure.v1',
    form: 'json',
    endpoint: '/client',
  },
  {
    id: 'reliable',
    title: 'json.reliable.webpubsub.azure.v1',
    about: 'The same, with numbered messages that are acknowledged.',
    subprotocol: 'json.reliable.webpubsub.azure.v1',
    form: 'json',
    endpoint: '/client',
  },
  {
    id: 'protobuf',
    title: 'protobuf.webpubsub.azure.v1',
    about: 'Groups, events and acknowledgements as protobuf, in binary frames.',
    subprotocol: 'protobuf.webpubsub.azure.v1',
    form: 'protobuf',
    endpoint: '/client',
  },
]

/** Returns the URL of a client without its token, for people; and with it, for the socket. */
export function clientUrl(page: Location, kind: ClientKind, hub: string, query: string, token: string | undefined): { shown: string; full: string } {
  const scheme = page.protocol === 'https:' ? 'wss:' : 'ws:'
  const pairs = new URLSearchParams(query)
  const place = `${scheme}//${page.host}${kind.endpoint}/hubs/${encodeURIComponent(hub)}`
  const url = () => (pairs.size === 0 ? place : `${place}?${pairs}`)
  if (token !== undefined) {
    pairs.set('access_token', token)
  }
  const full = url()
  pairs.delete('access_token')
  return { shown: url(), full }
}
