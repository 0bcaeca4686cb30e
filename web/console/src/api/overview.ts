/** The service in figures. */

import { call } from './call'
import { list, number, object, text, texts } from './reading'

export interface ShardFigures {
  readonly connections: number
  readonly queueBytes: number
  readonly busySeconds: number
}

/** What there is, and totals since the start. */
export interface Overview {
  readonly version: string
  readonly startedAt: string
  /** When it was so, in milliseconds since 1970 by the service's clock. */
  readonly time: number
  readonly uptimeSeconds: number
  readonly dialects: readonly string[]
  readonly publicEndpoints: readonly string[]
  readonly connections: { readonly preview: number; readonly webPubSub: number; readonly recovering: number }
  readonly hubs: number
  readonly messagesIn: number
  readonly messagesOut: number
  readonly bytesIn: number
  readonly bytesOut: number
  readonly upstream: { readonly calls: number; readonly failures: number; readonly inFlight: number }
  readonly slowConsumers: number
  readonly queueBytes: number
  readonly shards: readonly ShardFigures[]
}

export async function fetchOverview(signal: AbortSignal): Promise<Overview> {
  return readOverview(await (await call('GET', '/admin/v1/overview', { signal })).json())
}

export function readOverview(value: unknown): Overview {
  const document = object(value, 'the overview')
  const count = (name: string) => number(document[name], name)
  const connections = object(document.connections, 'connections')
  const upstream = object(document.upstream, 'upstream')
  return {
    version: text(document.version, 'version'),
    startedAt: text(document.startedAt, 'startedAt'),
    time: Date.parse(text(document.time, 'time')),
    uptimeSeconds: count('uptimeSeconds'),
    dialects: texts(document.dialects, 'dialects'),
    publicEndpoints: texts(document.publicEndpoints, 'publicEndpoints'),
    connections: {
      preview: number(connections.preview, 'connections.preview'),
      webPubSub: number(connections.webPubSub, 'connections.webPubSub'),
      recovering: number(connections.recovering, 'connections.recovering'),
    },
    hubs: count('hubs'),
    messagesIn: count('messagesIn'),
    messagesOut: count('messagesOut'),
    bytesIn: count('bytesIn'),
    bytesOut: count('bytesOut'),
    upstream: {
      calls: number(upstream.calls, 'upstream.calls'),
      failures: number(upstream.failures, 'upstream.failures'),
      inFlight: number(upstream.inFlight, 'upstream.inFlight'),
    },
    slowConsumers: count('slowConsumers'),
    queueBytes: count('queueBytes'),
    shards: list(document.shards, 'shards').map((item) => {
      const shard = object(item, 'a shard')
      return {
        connections: number(shard.connections, 'connections of a shard'),
        queueBytes: number(shard.queueBytes, 'queueBytes of a shard'),
        busySeconds: number(shard.busySeconds, 'busySeconds of a shard'),
      }
    }),
  }
}
