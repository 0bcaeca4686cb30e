/** A network between clients and the service that can be broken in the ways that networks break. */
import { once } from 'node:events';
import net from 'node:net';

import { within } from '../../js/lib/mailbox.mjs';

export class Proxy {
  #server;
  #target;
  #pairs = new Set();
  #refuses = false;

  /** @param target `host:port` of the service */
  static async start(target) {
    const proxy = new Proxy();
    proxy.target = target;
    proxy.#server = net.createServer({ pauseOnConnect: true }, (socket) => proxy.#accept(socket));
    proxy.#server.listen(0, '127.0.0.1');
    await once(proxy.#server, 'listening');
    return proxy;
  }

  /** Sends later connections there. */
  set target(address) {
    const { hostname, port } = new URL(`http://${address}`);
    this.#target = { host: hostname, port: Number(port) };
  }

  get address() {
    return `127.0.0.1:${this.#server.address().port}`;
  }

  /** Returns the URL that goes the same way through this proxy. */
  through(url) {
    const changed = new URL(url);
    changed.host = this.address;
    return changed.toString();
  }

  /** Waits for the next time that somebody tries to connect, whether that is refused or not. */
  async attempt() {
    return within(once(this.#server, 'connection'), 'an attempt to connect through the proxy');
  }

  /** Breaks every connection off, on both sides. */
  cut() {
    for (const pair of this.#pairs) pair.end();
  }

  /** Breaks every connection off and every later one, until `allow`. */
  refuse() {
    this.#refuses = true;
    this.cut();
  }

  allow() {
    this.#refuses = false;
  }

  /** From now on nothing that the service sends over the present connections arrives; what clients send does. */
  deafen() {
    for (const pair of this.#pairs) pair.deafen();
  }

  /**
   * Breaks the present connections off towards the clients alone: the service is not told and what it sends gets lost, as on a
   * half-open connection.
   * @returns one promise for each of them, fulfilled when the service has given it up
   */
  strand() {
    return [...this.#pairs].map((pair) => pair.strand());
  }

  /** Keeps back what the service sends over the present connections, until `release`. */
  hold() {
    for (const pair of this.#pairs) pair.hold();
  }

  release() {
    for (const pair of this.#pairs) pair.release();
  }

  async end() {
    this.cut();
    this.#server.close();
    await once(this.#server, 'close');
  }

  #accept(socket) {
    if (this.#refuses) {
      socket.destroy();
    } else {
      const pair = new Pair(socket, net.connect(this.#target), () => this.#pairs.delete(pair));
      this.#pairs.add(pair);
    }
  }
}

/** A client's socket and the one to the service. */
class Pair {
  #client;
  #service;
  #onEnd;

  constructor(client, service, onEnd) {
    this.#client = client;
    this.#service = service;
    this.#onEnd = onEnd;
    for (const socket of [client, service]) {
      socket.setNoDelay(true);
      // Whatever went wrong, `close` follows.
      socket.on('error', () => {});
      socket.once('close', this.end);
    }
    client.pipe(service);
    service.pipe(client);
  }

  end = () => {
    this.#client.destroy();
    this.#service.destroy();
    this.#onEnd();
  };

  deafen() {
    this.#service.unpipe(this.#client);
    this.#service.resume();
  }

  async strand() {
    this.#onEnd();
    this.#client.unpipe(this.#service);
    this.deafen();
    this.#client.off('close', this.end);
    this.#client.destroy();
    // A reset is an end too, at which `once` would throw.
    const closed = new Promise((resolve) => this.#service.once('close', resolve));
    if (!this.#service.closed) await within(closed, 'the end of a stranded connection');
  }

  hold() {
    this.#service.unpipe(this.#client);
    this.#service.pause();
  }

  release() {
    this.#service.pipe(this.#client);
  }
}
