/** WebSocket clients: the npm package `ws`, with messages that can be awaited. */
import http from 'node:http';
import { randomBytes } from 'node:crypto';

import WebSocket from 'ws';

import { Mailbox, within } from './mailbox.mjs';

/** Returns what arrives for one text frame. */
export const text = (data) => ({ kind: 'text', data });

/** Returns what arrives for one binary frame. */
export const binary = (data) => ({ kind: 'binary', data: Buffer.from(data) });

/** A handshake that was answered with something else than 101. */
export class Refused extends Error {
  constructor(status, headers, body) {
    super(`the handshake was answered with ${status}: ${body}`);
    Object.assign(this, { status, headers, body });
  }
}

export class Socket {
  #socket;
  #messages = new Mailbox('a message to a client');

  /**
   * Connects.
   * @param options `protocols`, `headers`; `compression`: what the client offers of permessage-deflate, as `ws` takes it
   * @throws {Refused} when the service does not upgrade
   */
  static async open(url, { protocols = [], headers = {}, compression } = {}) {
    const offer = compression === undefined ? {} : { perMessageDeflate: compression };
    const socket = new WebSocket(url, protocols, { headers, ...offer });
    const self = new Socket(socket);
    const opened = new Promise((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', reject);
      socket.once('unexpected-response', (_, response) => {
        const parts = [];
        response.on('data', (part) => parts.push(part));
        response.on('end', () => {
          reject(new Refused(response.statusCode, response.headers, Buffer.concat(parts).toString()));
          socket.terminate();
        });
      });
    });
    await within(opened, `connecting to ${new URL(url).pathname}`);
    return self;
  }

  constructor(socket) {
    this.#socket = socket;
    // Told through `open` and `closed`; without a listener it would end the process.
    socket.on('error', () => {});
    socket.on('upgrade', (response) => {
      this.handshakeHeaders = response.headers;
    });
    socket.on('message', (data, isBinary) => {
      this.#messages.put(isBinary ? binary(data) : text(data.toString()));
    });
    /** How it ended: the code and reason of the service's close frame; 1006 without one. */
    this.closed = new Promise((resolve) => {
      socket.once('close', (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  /** The subprotocol that was chosen; empty when none was. */
  get protocol() {
    return this.#socket.protocol;
  }

  /** The extensions that are in use; empty when none is. */
  get extensions() {
    return this.#socket.extensions;
  }

  /** Bytes that have come over the network, those of the handshake included. */
  get wireBytes() {
    return this.#socket._socket.bytesRead;
  }

  /** Messages that have arrived and were not awaited. */
  get untaken() {
    return this.#messages.untaken;
  }

  async next() {
    return this.#messages.next();
  }

  send(data, options) {
    this.#socket.send(data, options);
  }

  /** Closes as the protocol wants it and waits until that is done. */
  async close(code, reason) {
    this.#socket.close(code, reason);
    return within(this.closed, 'the close handshake');
  }

  /** Cuts the TCP connection. */
  terminate() {
    this.#socket.terminate();
  }

  /** Waits for the end that somebody else brings about. */
  async end() {
    return within(this.closed, 'the end of a connection');
  }
}

/** Returns how the service refuses a handshake. */
export async function refusal(url, options) {
  let socket;
  try {
    socket = await Socket.open(url, options);
  } catch (error) {
    if (error instanceof Refused) return error;
    throw error;
  }
  socket.terminate();
  throw new Error(`${new URL(url).pathname} was expected to be refused`);
}

/**
 * Does a handshake by hand, for answers that a good client does not accept.
 * @returns {Promise<{status: number, headers: object, socket: import('node:net').Socket}>}
 */
export async function bareHandshake(url, headers = {}) {
  const request = http.get(url.replace(/^ws/, 'http'), {
    headers: {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      ...headers,
    },
  });
  const answered = new Promise((resolve, reject) => {
    request.once('error', reject);
    request.once('upgrade', (response, socket) => {
      resolve({ status: response.statusCode, headers: response.headers, socket });
    });
    request.once('response', (response) => {
      response.resume();
      resolve({ status: response.statusCode, headers: response.headers, socket: response.socket });
    });
  });
  return within(answered, 'the answer to a handshake');
}
