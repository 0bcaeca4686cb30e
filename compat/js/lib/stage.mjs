/** What nearly every test needs: one service, one upstream, and a hub of its own for each test. */
import assert from 'node:assert/strict';

import axios from 'axios';
import jwt from 'jsonwebtoken';

import { client } from './old-library.mjs';
import { PRIMARY_KEY, Service } from './service.mjs';
import { Socket } from './socket.mjs';
import { Upstream } from './upstream.mjs';

/** Returns a token in the way that the preview's callers make them: the audience has no port. */
export function token(path, { key = PRIMARY_KEY, host = '127.0.0.1', algorithm = 'HS256', expiresIn = '1h', ...claims } = {}) {
  return jwt.sign(claims, key, { algorithm, expiresIn, audience: `http://${host}${path}` });
}

/** Makes a request and returns whatever is answered, with a body as text. */
export async function request(url, { method = 'GET', headers = {}, data } = {}) {
  const { status, headers: answered, data: body } = await axios.request({
    url,
    method,
    headers,
    data,
    maxRedirects: 0,
    responseType: 'text',
    transformRequest: [(sent) => sent],
    transformResponse: [(received) => received],
    validateStatus: () => true,
  });
  return { status, headers: answered, body };
}

export class Stage {
  #rooms = 0;

  /**
   * Starts both.
   * @param configuration further TOML for the service
   */
  static async set(configuration) {
    const stage = new Stage();
    stage.upstream = await Upstream.start();
    stage.service = await Service.start({ template: stage.upstream.template, configuration });
    return stage;
  }

  /** Returns a hub that no other test uses. */
  room(handlers) {
    this.#rooms += 1;
    return new Room(this, `room_${this.#rooms}`, handlers);
  }

  /**
   * Stops the service and looks back at all that happened: the service must end well, and every connection that was let in must
   * have had exactly one disconnect event, every other none.
   */
  async end() {
    const exit = await this.service.stop();
    assert.deepEqual(exit, { code: 0, signal: null }, this.service.log);
    assert.deepEqual(this.upstream.faults(), []);
    assert.ok(!this.service.log.includes('panicked'), this.service.log);
  }

  /** Leaves nothing behind, however it went. */
  async clear() {
    await this.service.clear();
    await this.upstream.end();
  }
}

export class Room {
  #stage;

  constructor(stage, hub, handlers) {
    this.#stage = stage;
    this.hub = hub;
    this.upstream = stage.upstream.hub(hub, handlers);
    this.library = client(stage.service.connectionString, hub);
  }

  /** Returns a client URL; `rest` is what comes after the hub. */
  url(rest = '/') {
    return `ws://${this.#stage.service.address}/ws/client/hubs/${this.hub}${rest}`;
  }

  /** Connects as `user`, by the upstream's word, and waits for the connect event. */
  async join(user, { format, ...options } = {}) {
    const query = new URLSearchParams({ user, ...(format && { format }) });
    const socket = await Socket.open(this.url(`/?${query}`), options);
    const { connectionId } = await this.upstream.connects.next();
    return Object.assign(socket, { id: connectionId });
  }

  /**
   * Calls the REST API with a token for exactly this path.
   * @param path what comes after the hub, such as `/users/ann`, as it goes over the wire
   */
  async call(method, path, { data, type, signed = path, key } = {}) {
    const base = `/ws/api/v1/hubs/${this.hub}`;
    return request(`${this.#stage.service.url}${base}${path}`, {
      method,
      data,
      headers: {
        Authorization: `Bearer ${token(base + signed, { key })}`,
        ...(type && { 'Content-Type': type }),
      },
    });
  }

  /**
   * Makes sure that each of `sockets` has got just `messages` since it was last looked at, and nothing else: a broadcast that all
   * get closes the list, since messages of one sender arrive in order.
   */
  async got(...expectations) {
    this.marks = (this.marks ?? 0) + 1;
    const mark = `mark ${this.marks}`;
    await this.library.broadcast(mark);
    for (const [socket, ...messages] of expectations) {
      const got = [];
      for (let message = await socket.next(); message.data.toString() !== mark; message = await socket.next()) {
        got.push(message);
      }
      assert.deepEqual(got, messages);
    }
  }
}
