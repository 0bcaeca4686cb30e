/** The chat's outside world in a browser. */

import { read, write } from '../../../shared/storage'
import type { ChatEnvironment } from '../client/chat'
import type { Socket } from '../client/connection'
import type { Bring } from '../client/uploads'
import { parseEndpoint } from '../client/wire'

/** Returns the environment of a user's chat in this tab. */
export function browserEnvironment(user: string): ChatEnvironment {
  return {
    async endpoint(signal) {
      // `?token=1` on the page asks for a URL that carries an access token.
      const token = new URLSearchParams(location.search).get('token') === '1'
      const response = await fetch(token ? '/api/endpoint?token=1' : '/api/endpoint', { signal, cache: 'no-store' })
      if (!response.ok) {
        throw new Error(`/api/endpoint answered ${response.status}`)
      }
      return parseEndpoint(await response.json())
    },
    // The handlers that we set ask for less than those of a WebSocket.
    socket: (url, subprotocol) => new WebSocket(url, subprotocol) as Socket,
    chance: Math.random,
    newKey() {
      // Not `randomUUID`: that exists on https and loopback only.
      return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')
    },
    keep: keptInTab(`hookwire.chat.unsent.${user}`),
    bring,
  }
}

/** By XMLHttpRequest: `fetch` does not tell how much was sent. */
const bring: Bring = (path, file, progress, signal) =>
  new Promise((resolve, reject) => {
    const request = new XMLHttpRequest()
    request.open('POST', path)
    request.responseType = 'json'
    request.upload.onprogress = ({ loaded, total }) => progress(total === 0 ? 0 : loaded / total)
    request.onload = () => resolve({ ok: request.status === 201, body: request.response as unknown })
    request.onerror = () => reject(new Error('the upload broke off'))
    request.onabort = () => reject(new Error('the upload was broken off'))
    signal.addEventListener('abort', () => request.abort())
    request.send(file)
  })

/** Returns a place for one text that lasts as long as the tab. */
export function keptInTab(key: string): { load(): string | null; save(text: string): void } {
  return {
    load: () => read(sessionStorage, key),
    save: (text) => write(sessionStorage, key, text),
  }
}
