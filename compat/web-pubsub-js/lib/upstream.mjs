/**
 * An upstream: an Express application with the official middleware, one for each hub.
 *
 * What the middleware hands to its handlers goes into mailboxes; beside that, every request is noted as it came over the wire.
 */
import { once } from 'node:events';

import { WebPubSubEventHandler } from '@azure/web-pubsub-express';
import express from 'express';

import { Mailbox } from '../../js/lib/mailbox.mjs';

/** What the middleware listens to unless it is told otherwise. */
const DEFAULT_PATH = '/api/webpubsub/hubs/{hub}/';

export class Upstream {
  #server;
  #router = express.Router();
  #hubs = new Map();
  #strangers = [];

  static async start() {
    const upstream = new Upstream();
    const application = express();
    application.disable('x-powered-by');
    application.use((request, response, next) => upstream.#note(request, response, next));
    application.use(upstream.#router);
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

  /** Where the events of all hubs go; the service fills in `{hub}` and `{event}`. */
  get template() {
    return `${this.url}${DEFAULT_PATH}?event={event}`;
  }

  /**
   * Returns the hub of this name, which gets its events from now on.
   * @param handlers options of the official middleware, all of which may be left out: what is not handled here is answered by
   *   success without content
   */
  hub(name, handlers) {
    const hub = new UpstreamHub(name, handlers);
    this.#hubs.set(name.toLowerCase(), hub);
    this.use(hub.middleware);
    return hub;
  }

  /** Adds a hub whose middleware is made without any options. */
  bareHub(name) {
    this.#hubs.set(name.toLowerCase(), { requests: [], hearsAll: true });
    this.use(new WebPubSubEventHandler(name));
  }

  /** Adds an official middleware that a test has made for itself. */
  use(handler) {
    this.#router.use(handler.getMiddleware());
  }

  /** What is wrong with the record as a whole, once the service has stopped: empty when all is well. */
  faults() {
    const faults = this.#strangers.map((request) => `nobody expects ${request}`);
    for (const [name, { requests, hearsAll }] of this.#hubs) if (hearsAll) faults.push(...faultsOf(name, requests));
    return faults;
  }

  /** Takes note of requests that no hub handles and were expected, and returns them. */
  takeStrangers() {
    return this.#strangers.splice(0);
  }

  /** Ends the upstream, unless that has happened. */
  async end() {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #note(request, response, next) {
    const hub = this.#hubs.get(hubOf(request, this.#hubs));
    if (hub) {
      const record = {
        method: request.method,
        url: request.originalUrl,
        headers: request.headers,
        type: request.get('ce-type'),
        connection: request.get('ce-connectionid'),
        status: undefined,
      };
      hub.requests.push(record);
      response.once('finish', () => {
        record.status = response.statusCode;
      });
    }
    next();
  }
}

/** Returns the name of the hub that a request is about: of validations only the URL says that. */
function hubOf(request, hubs) {
  const named = request.get('ce-hub')?.toLowerCase();
  return named ?? request.path.split('/').find((segment) => hubs.has(segment));
}

/** Returns each breach of the rule that every connection that was let in, and no other, is told to have ended, just once. */
function faultsOf(name, requests) {
  const ids = new Set(requests.map(({ connection }) => connection));
  const faults = [];
  for (const id of ids) {
    const of = (type) => requests.filter((record) => record.connection === id && record.type === `azure.webpubsub.sys.${type}`);
    const isIn = of('connected').length === 1;
    const accepted = of('connect').some(({ status }) => 200 <= status && status < 300);
    const ends = of('disconnected').length;
    const expected = accepted || isIn ? 1 : 0;
    if (ends !== expected) faults.push(`hub ${name}: ${expected} disconnected event(s) expected, ${ends} came for ${id}`);
    if (1 < of('connected').length) faults.push(`hub ${name}: more than one connected event came for ${id}`);
  }
  return faults;
}

class UpstreamHub {
  connects = new Mailbox('a connect event');
  connecteds = new Mailbox('a connected event');
  events = new Mailbox('a user event');
  disconnecteds = new Mailbox('a disconnected event');
  joins = new Mailbox('a joined event');
  leaves = new Mailbox('a left event');
  /** Every request about this hub, in the order in which they came. */
  requests = [];
  /** Whether all system events come here, so that one can look for those that are missing. */
  hearsAll = true;

  constructor(name, { handleConnect = letIn, handleUserEvent = noAnswer, ...options } = {}) {
    const noted = (mailbox, handler) => (request, response) => {
      handler?.(request, response);
      mailbox.put(request);
    };
    this.middleware = new WebPubSubEventHandler(name, {
      ...options,
      handleConnect: noted(this.connects, handleConnect),
      handleUserEvent: noted(this.events, handleUserEvent),
      onConnected: noted(this.connecteds),
      onDisconnected: noted(this.disconnecteds),
      onGroupJoined: noted(this.joins),
      onGroupLeft: noted(this.leaves),
    });
  }
}

function letIn(_, response) {
  response.success();
}

function noAnswer(_, response) {
  response.success();
}
