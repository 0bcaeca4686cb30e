/**
 * An upstream like the samples of the preview: an Express application that gets the events of every hub.
 *
 * Each hub has its own handlers and its own record of what came. A handler is `(request, response, event)`; without one a
 * connect is answered with the user that the client names in its query, everything else with an empty 200.
 */
import { once } from 'node:events';

import express from 'express';

import { Mailbox } from './mailbox.mjs';
import { client } from './old-library.mjs';

/** Only its reading of events is used here; it talks to nobody. */
const { event: readEvent } = Object.getPrototypeOf(client('Endpoint=http://nobody;AccessKey=none;'));

/** Above the largest message of a client. */
const BODY_MAX = '17mb';

export class Upstream {
  #server;
  #hubs = new Map();
  #strangers = [];

  static async start() {
    const upstream = new Upstream();
    const application = express();
    application.disable('x-powered-by');
    application.post('/:hub/:category/:event', express.raw({ type: () => true, limit: BODY_MAX }), (request, response) =>
      upstream.#handle(request, response),
    );
    application.use((request, response) => {
      upstream.#strangers.push(`${request.method} ${request.originalUrl}`);
      response.sendStatus(404);
    });
    upstream.#server = application.listen(0, '127.0.0.1');
    await once(upstream.#server, 'listening');
    return upstream;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Where the events of all hubs go; `{hub}` and the like are filled in by the service. */
  get template() {
    return `${this.url}/{hub}/{category}/{event}`;
  }

  /** Returns the hub of this name, which gets its events from now on. */
  hub(name, handlers = {}) {
    const hub = new UpstreamHub(handlers);
    this.#hubs.set(name, hub);
    return hub;
  }

  /** What is wrong with the record as a whole, once the service has stopped: empty when all is well. */
  faults() {
    const faults = this.#strangers.map((request) => `nobody expects ${request}`);
    for (const [name, hub] of this.#hubs) {
      for (const [id, { admitted, disconnects }] of hub.connections) {
        const expected = admitted ? 1 : 0;
        if (disconnects !== expected) {
          faults.push(`hub ${name}: ${expected} disconnect event(s) expected, ${disconnects} came for ${id}`);
        }
      }
    }
    return faults;
  }

  /** Ends the upstream, unless that has happened. */
  async end() {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #handle(request, response) {
    const hub = this.#hubs.get(request.params.hub);
    const event = readEvent(request.headers);
    if (!hub || request.params.event !== event.event || request.params.category !== event.category) {
      this.#strangers.push(`${request.method} ${request.originalUrl} with event ${event.category}/${event.event}`);
      response.sendStatus(404);
      return;
    }
    hub.handle(request, response, event);
  }
}

class UpstreamHub {
  connects = new Mailbox('a connect event');
  messages = new Mailbox('a message event');
  disconnects = new Mailbox('a disconnect event');
  /** All events of the hub as `[event, connection id, body]`, in the order in which they came. */
  log = [];
  /** Per connection id: was it let in, how many disconnect events came. */
  connections = new Map();

  constructor(handlers) {
    this.handlers = handlers;
  }

  handle(request, response, event) {
    const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
    const record = {
      ...event,
      body,
      text: body.toString(),
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      method: request.method,
      url: request.originalUrl,
      httpVersion: request.httpVersion,
    };
    this.log.push([event.event, event.connectionId, record.text]);
    const connection = this.connections.get(event.connectionId) ?? { admitted: false, disconnects: 0 };
    this.connections.set(event.connectionId, connection);
    if (record.isConnect) {
      response.once('finish', () => {
        // Whoever stays without a user is turned away by the service.
        const user = response.get('X-ASRS-User-Id') ?? event.userId;
        connection.admitted = 200 <= response.statusCode && response.statusCode < 300 && Boolean(user);
      });
    } else if (event.event === 'disconnect') {
      connection.disconnects += 1;
    }
    const handler = this.handlers[event.event] ?? (record.isConnect ? letIn : empty);
    handler(request, response, record);
    this[`${event.event}s`].put(record);
  }
}

/** Answers a connect with the user that the client's query names, if it does. */
export function letIn(_, response, event) {
  if (event.query.user) response.set('X-ASRS-User-Id', headerText(event.query.user));
  response.status(200).end();
}

/** Returns how Node must be given a text that is to stand as UTF-8 in a header: it writes one byte per character. */
export function headerText(value) {
  return Buffer.from(value, 'utf8').toString('latin1');
}

/** Returns the text of a header that Node has read byte by byte. */
export function textOfHeader(value) {
  return Buffer.from(value, 'latin1').toString('utf8');
}

function empty(_, response) {
  response.status(200).end();
}
