/**
 * The client library of the 2020 preview, as its users know it: the same calls, the same requests on the wire.
 *
 * That library cannot be installed from a registry any more, so its behaviour is written down here in our own words, from the
 * notes on the protocol. It is for tests only: it stands for all the code in the world that still talks like this. It is
 * therefore strict where the old library was strict (a connection string needs a `;` after each value that is read), odd where
 * that was odd (a content type on requests without a body, a close reason that is signed as it was written), and it must not be
 * changed to please the service.
 *
 * One thing differs on purpose: the old helper for client URLs fails when a user is given. Here it works, in the form that its
 * authors meant.
 */
import querystring from 'node:querystring';

import axios from 'axios';
import jwt from 'jsonwebtoken';

/** How long a token is valid. */
const TOKEN_LIFETIME = '1h';

/** Each value ends at a semicolon; the last one too. */
const ENDPOINT = /Endpoint=(.*?);/i;
const PORT = /Port=(.*?);/i;
const ACCESS_KEY = /AccessKey=(.*?);/i;

/**
 * Returns the client whose connection string and hub are in the environment, which is how functions use it.
 * @param context what a function is called with; its `log` hears of every request
 */
export default function fromEnvironment(context) {
  return client(process.env.AzureSignalRConnectionString, process.env.HubName, context);
}

/** Returns the client for a connection string and a hub. Without a hub its paths name none. */
export function client(connectionString, hub, context) {
  return new OldLibrary(parseConnectionString(connectionString), hub, context);
}

/**
 * Returns where the service is and the key to it.
 * @returns {{endpoint: string, port: string | undefined, accessKey: string}}
 */
export function parseConnectionString(connectionString) {
  const read = (pattern) => pattern.exec(connectionString ?? '')?.[1];
  const endpoint = read(ENDPOINT);
  const accessKey = read(ACCESS_KEY);
  if (!endpoint) throw new Error('the connection string has no Endpoint');
  if (!accessKey) throw new Error('the connection string has no AccessKey');
  return { endpoint: endpoint.replace(/\/$/, ''), port: read(PORT), accessKey };
}

class OldLibrary {
  #service;
  #hub;
  #path;
  #log;

  constructor(service, hub, context) {
    this.#service = service;
    this.#hub = hub;
    this.#path = hub ? `/ws/api/v1/hubs/${hub}/` : '/ws/api/v1/';
    this.#log = context?.log ?? (() => {});
  }

  /** Reads what the service says about an event in the headers of its request. */
  event(headers) {
    const query = headers['x-asrs-client-query'];
    return {
      connectionId: headers['x-asrs-connection-id'],
      hub: headers['x-asrs-hub'],
      category: headers['x-asrs-category'],
      event: headers['x-asrs-event'],
      userId: headers['x-asrs-user-id'],
      claims: headers['x-asrs-user-claims'],
      signature: headers['x-asrs-signature'],
      query: query === undefined ? {} : querystring.parse(query.replace(/^\?/, '')),
      isConnect: headers['x-asrs-event'] === 'connect',
    };
  }

  async broadcast(message) {
    await this.#request('POST', '', message);
  }

  async sendToConnection(connectionId, message) {
    await this.#request('POST', `connections/${connectionId}`, message);
  }

  async sendToUser(user, message) {
    await this.#request('POST', `users/${encodeURIComponent(user)}`, message);
  }

  async sendToGroup(group, message) {
    await this.#request('POST', `groups/${encodeURIComponent(group)}`, message);
  }

  /** The reason stands in the URL, and in what is signed, just as it was given. */
  async closeConnection(connectionId, reason) {
    const query = reason === undefined ? '' : `?reason=${reason}`;
    await this.#request('DELETE', `connections/${connectionId}${query}`);
  }

  async addConnectionToGroup(group, connectionId) {
    await this.#request('PUT', `groups/${encodeURIComponent(group)}/connections/${connectionId}`);
  }

  async removeConnectionFromGroup(group, connectionId) {
    await this.#request('DELETE', `groups/${encodeURIComponent(group)}/connections/${connectionId}`);
  }

  async addToGroup(group, user) {
    await this.#request('PUT', `groups/${encodeURIComponent(group)}/users/${encodeURIComponent(user)}`);
  }

  async removeFromGroup(group, user) {
    await this.#request('DELETE', `groups/${encodeURIComponent(group)}/users/${encodeURIComponent(user)}`);
  }

  async removeFromAllGroups(user) {
    await this.#request('DELETE', `users/${encodeURIComponent(user)}/groups`);
  }

  async connectionExists(connectionId) {
    return this.#exists(`connections/${connectionId}`);
  }

  async userExists(user) {
    return this.#exists(`users/${encodeURIComponent(user)}`);
  }

  async groupExists(group) {
    return this.#exists(`groups/${encodeURIComponent(group)}`);
  }

  /** Returns the URL for clients; with a user it carries a token, without one the upstream decides who comes in. */
  clientEndpoint(user, claims = {}) {
    const path = `/ws/client/hubs/${this.#hub}/`;
    const url = `${this.#url(path)}`.replace(/^http/, 'ws');
    if (user === undefined) return url;
    const token = this.#sign(path, { ...claims, sub: user });
    return `${url}?access_token=${token}`;
  }

  async #exists(target) {
    try {
      await this.#request('HEAD', target);
      return true;
    } catch (error) {
      if (error.status === 404) return false;
      throw error;
    }
  }

  async #request(method, target, data) {
    const path = this.#path + target;
    const headers = { Authorization: `Bearer ${this.#sign(path)}`, 'Content-Type': 'text/plain' };
    this.#log(`${method} ${path}`);
    try {
      await axios.request({ method, url: this.#url(path), headers, data });
    } catch (error) {
      // A service that breaks off without an answer surfaces as a TypeError: nothing asks whether there is a response.
      const { status } = error.response;
      throw Object.assign(new Error(`${method} ${target} was answered with ${status}`), { status });
    }
  }

  #url(path) {
    const { endpoint, port } = this.#service;
    return `${port ? `${endpoint.replace(/:\d+$/, '')}:${port}` : endpoint}${path}`;
  }

  /** What is signed is the URL without its port. */
  #sign(path, claims = {}) {
    const audience = `${this.#service.endpoint.replace(/:\d+$/, '')}${path}`;
    return jwt.sign(claims, this.#service.accessKey, { algorithm: 'HS256', audience, expiresIn: TOKEN_LIFETIME });
  }
}
