/** What nearly every test needs: one service, perhaps an upstream, and a hub of its own for each test. */
import assert from 'node:assert/strict';

import { WebPubSubServiceClient } from '@azure/web-pubsub';

import { PRIMARY_KEY, Service } from '../../js/lib/service.mjs';
import { Socket } from '../../js/lib/socket.mjs';
import { Client } from './client.mjs';
import { Proxy } from './proxy.mjs';
import { Upstream } from './upstream.mjs';

/** The official clients insist on TLS unless they are told. */
export const INSECURE = { allowInsecureConnection: true };

/** The rights to do everything with all groups. */
export const ALL_ROLES = ['webpubsub.joinLeaveGroup', 'webpubsub.sendToGroup'];

export class Stage {
  #hubs = 0;
  #clients = [];
  #proxies = [];

  /**
   * Starts the service.
   * @param options `upstream`: whether the events of every hub go to an upstream; `configuration`: a function of the upstream's URL
   *   that returns further TOML, with top-level keys first
   */
  static async set({ upstream = false, configuration = () => '' } = {}) {
    const stage = new Stage();
    stage.upstream = await Upstream.start();
    const handler = [
      '[[defaults.event_handler]]',
      `url_template = ${JSON.stringify(stage.upstream.template)}`,
      'system_events = ["connect", "connected", "disconnected"]',
    ];
    stage.configuration = [configuration(stage.upstream.url), ...(upstream ? handler : [])].join('\n');
    stage.service = await Service.start({ configuration: stage.configuration });
    return stage;
  }

  /**
   * Returns a hub that no other test uses.
   * @param options `name`: if the configuration has one for it; `handlers`: what the upstream does
   */
  hub({ name, handlers } = {}) {
    this.#hubs += 1;
    return new Hub(this, name ?? `hub_${this.#hubs}`, handlers);
  }

  /** Returns the official server library for a hub. */
  serviceOf(hub) {
    // Not the connection string that the service prints: a stage may give it other public names than the one that is listened on.
    const endpoint = `http://${this.service.address}`;
    return new WebPubSubServiceClient(`Endpoint=${endpoint};AccessKey=${PRIMARY_KEY};Version=1.0;`, hub, INSECURE);
  }

  /** Returns a client that is stopped when the stage ends. */
  client(credential, options) {
    const client = new Client(credential, options);
    this.#clients.push(client);
    return client;
  }

  /** Starts a proxy in front of the service. */
  async proxy() {
    const proxy = await Proxy.start(this.service.address);
    this.#proxies.push(proxy);
    return proxy;
  }

  /** Goes on with another service in the place of the first, which has ended; the ways there lead to it from now on. */
  follow(successor) {
    this.service = successor;
    for (const proxy of this.#proxies) proxy.target = successor.address;
  }

  /** Stops clients and service and looks back at all that happened: the service must end well, and so must every connection. */
  async end() {
    await Promise.all(this.#clients.map((client) => client.stop()));
    const exit = await this.service.stop();
    assert.deepEqual(exit, { code: 0, signal: null }, this.service.log);
    assert.deepEqual(this.upstream.faults(), []);
    assert.ok(!this.service.log.includes('panicked'), this.service.log);
  }

  /** Leaves nothing behind, however it went. */
  async clear() {
    await Promise.all(this.#proxies.map((proxy) => proxy.end()));
    await this.service.clear();
    await this.upstream.end();
  }
}

export class Hub {
  #stage;
  #marks = 0;

  constructor(stage, name, handlers) {
    this.#stage = stage;
    this.name = name;
    this.upstream = stage.upstream.hub(name, handlers);
    this.service = stage.serviceOf(name);
  }

  /** Returns a client URL, with a token for `grant`: what `getClientAccessToken` takes. */
  async url(grant) {
    const { url } = await this.service.getClientAccessToken(grant);
    return url;
  }

  /** Connects a simple client, without subprotocol unless `options` say otherwise. */
  async socket(grant, options) {
    return Socket.open(await this.url(grant), options);
  }

  /**
   * Starts an official client for `grant`.
   * @param options those of the official client, and `proxy`: the way to the service
   */
  async client(grant, { proxy, ...options } = {}) {
    const client = this.prepare(grant, { proxy, ...options });
    await client.start();
    return client;
  }

  /** Returns an official client that is not started yet. */
  prepare(grant, { proxy, ...options } = {}) {
    const getClientAccessUrl = async () => {
      const url = await this.url(grant);
      return proxy ? proxy.through(url) : url;
    };
    return this.#stage.client({ getClientAccessUrl }, options);
  }

  /**
   * Makes sure that each receiver has got just `messages` since it was last looked at, and nothing else: what has been sent and
   * answered comes before what is sent later, so a message to all closes the list.
   * @param expectations `[receiver, ...messages]`, the receiver being a client or a socket
   */
  async got(...expectations) {
    this.#marks += 1;
    const mark = `mark ${this.#marks}`;
    await this.service.sendToAll(mark, { contentType: 'text/plain' });
    for (const [receiver, ...messages] of expectations) {
      const got = [];
      for (let message = await receiver.next(); String(message.data) !== mark; message = await receiver.next()) {
        got.push(message);
      }
      assert.deepEqual(got, messages);
    }
  }
}
