/** An upstream of both dialects, whose answers a test decides. */

import { type Server, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Answer {
  readonly status?: number
  readonly type?: string
  readonly body?: string
}

export class Upstream {
  readonly #server: Server
  /** What to answer to an event, by its name; otherwise 200 without a body. */
  readonly answers = new Map<string, Answer>()
  /** The events that came: the path, then the event's name and its user. */
  readonly seen: string[] = []

  private constructor() {
    this.#server = createServer((request, response) => {
      request.resume().on('end', () => {
        const { headers } = request
        const event = String(headers['ce-eventname'] ?? headers['x-asrs-event'] ?? '')
        const user = String(headers['ce-userid'] ?? headers['x-asrs-user-id'] ?? '')
        if (request.method === 'POST') {
          this.seen.push(`${request.url} ${event} ${user}`.trim())
        }
        const { status = 200, type = 'text/plain', body = '' } = request.method === 'POST' ? (this.answers.get(event) ?? {}) : {}
        const about = body === '' ? {} : { 'Content-Type': type }
        response.writeHead(status, { 'WebHook-Allowed-Origin': '*', ...about }).end(body)
      })
    })
  }

  static async start(): Promise<Upstream> {
    const upstream = new Upstream()
    await new Promise<void>((resolve) => upstream.#server.listen(0, '127.0.0.1', resolve))
    return upstream
  }

  /** The address without a slash at its end. */
  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  stop(): Promise<void> {
    this.#server.closeAllConnections()
    return new Promise((resolve) => this.#server.close(() => resolve()))
  }
}
