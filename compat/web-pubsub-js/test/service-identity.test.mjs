// The official server library with tokens of an identity provider in the place of an access key.
import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';
import { after, test } from 'node:test';

import { WebPubSubServiceClient } from '@azure/web-pubsub';
import { createDefaultHttpClient } from '@azure/core-rest-pipeline';
import jwt from 'jsonwebtoken';

import { text } from '../../js/lib/socket.mjs';
import { Stage } from '../lib/stage.mjs';

const AUDIENCE = 'https://webpubsub.azure.com';
const SCOPE = `${AUDIENCE}/.default`;

/** An identity provider: it publishes the one key that it signs with. */
class Provider {
  #server;
  #key;

  static async start() {
    const provider = new Provider();
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
    provider.#key = privateKey;
    const keys = [{ ...publicKey.export({ format: 'jwk' }), kid: 'the key', use: 'sig', alg: 'RS256' }];
    provider.#server = http.createServer((_, response) => response.end(JSON.stringify({ keys })));
    provider.#server.listen(0, '127.0.0.1');
    await once(provider.#server, 'listening');
    return provider;
  }

  get issuer() {
    return `http://127.0.0.1:${this.#server.address().port}/`;
  }

  /** Returns a credential as the identity library makes them, with a token of these claims. */
  credential(claims, options) {
    const token = jwt.sign({ aud: AUDIENCE, iss: this.issuer, ...claims }, this.#key, {
      algorithm: 'RS256',
      keyid: 'the key',
      expiresIn: '1h',
      ...options,
    });
    return {
      scopes: [],
      async getToken(scopes) {
        this.scopes.push(scopes);
        return { token, expiresOnTimestamp: Date.now() + 3_600_000 };
      },
    };
  }

  async end() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }
}

const provider = await Provider.start();
const stage = await Stage.set({
  configuration: () => `
[[oidc]]
issuer = ${JSON.stringify(provider.issuer)}
jwks_url = ${JSON.stringify(`${provider.issuer}keys`)}
audience = ${JSON.stringify(AUDIENCE)}
roles = { "Hooks.Owner" = "full", "Hooks.Reader" = "read" }`,
});
after(() =>
  stage
    .end()
    .finally(() => stage.clear())
    .finally(() => provider.end()),
);

/** Stands for whatever does TLS in front of the service: the library sends tokens to https addresses only. */
const withoutTls = (() => {
  const client = createDefaultHttpClient();
  return {
    sendRequest: (request) => {
      request.url = request.url.replace(/^https:/, 'http:');
      request.allowInsecureConnection = true;
      return client.sendRequest(request);
    },
  };
})();

const library = (hub, credential) =>
  new WebPubSubServiceClient(`https://${stage.service.address}`, credential, hub.name, { httpClient: withoutTls });

test('who owns may do everything', async () => {
  const hub = stage.hub();
  const socket = await hub.socket({ userId: 'ann', groups: ['g'] });
  const credential = provider.credential({ roles: ['Something.Else', 'Hooks.Owner'] });
  const client = library(hub, credential);
  await client.sendToAll('one', { contentType: 'text/plain' });
  await client.group('g').sendToAll('two', { contentType: 'text/plain' });
  assert.equal(await client.userExists('ann'), true);
  assert.equal(await client.userExists('bob'), false);
  await hub.got([socket, text('one'), text('two')]);
  assert.deepEqual(credential.scopes, [[SCOPE]]);
});

test('tokens for clients are made by the service', async () => {
  const hub = stage.hub();
  const client = library(hub, provider.credential({ roles: ['Hooks.Owner'] }));
  const grant = { userId: 'ann', groups: ['a', 'b'], roles: ['webpubsub.sendToGroup.a'], expirationTimeInMinutes: 5 };
  const { baseUrl, token, url } = await client.getClientAccessToken(grant);
  assert.equal(baseUrl, `wss://${stage.service.address}/client/hubs/${hub.name}`);
  assert.equal(url, `${baseUrl}?access_token=${token}`);
  const { sub, exp, iat } = jwt.decode(token);
  assert.equal(sub, 'ann');
  if (iat) assert.equal(exp - iat, 300);
  const json = stage.client(url.replace(/^wss/, 'ws'));
  assert.equal((await json.start()).userId, 'ann');
  await json.sdk.sendToGroup('a', 'x', 'text');
  assert.equal((await json.next()).data, 'x');
  await assert.rejects(json.sdk.sendToGroup('b', 'x', 'text'), ({ errorDetail }) => errorDetail.name === 'Forbidden');
  assert.equal(await client.groupExists('b'), true);

  for (const [clientProtocol, path] of [['default', 'client'], ['mqtt', 'clients/mqtt'], ['socketio', 'clients/socketio']]) {
    const made = await client.getClientAccessToken({ clientProtocol });
    assert.match(jwt.decode(made.token).aud, new RegExp(`^https?://${stage.service.address}/${path}/hubs/${hub.name}$`));
  }
});

test('who reads may ask and not act', async () => {
  const hub = stage.hub();
  const socket = await hub.socket({ userId: 'ann', groups: ['g'] });
  const client = library(hub, provider.credential({ roles: ['Hooks.Reader'] }));
  assert.equal(await client.userExists('ann'), true);
  assert.equal(await client.groupExists('h'), false);
  const members = [];
  for await (const { userId } of await client.group('g').listConnections()) members.push(userId);
  assert.deepEqual(members, ['ann']);
  for (const call of [
    () => client.sendToAll('x'),
    () => client.closeAllConnections(),
    () => client.group('g').addUser('ann'),
    () => client.getClientAccessToken(),
  ]) {
    await assert.rejects(call, { statusCode: 403 });
  }
  await hub.got([socket]);
});

test('tokens of others, for others, without a role or out of date open nothing', async () => {
  const hub = stage.hub();
  const stranger = await Provider.start();
  try {
    const owner = { roles: ['Hooks.Owner'] };
    const cases = [
      [403, provider.credential({ roles: ['Something.Else'] })],
      [403, provider.credential({})],
      [401, provider.credential({ ...owner, aud: 'https://elsewhere.example' })],
      [401, provider.credential({ ...owner, iss: stranger.issuer })],
      [401, provider.credential(owner, { expiresIn: '-10m' })],
      [401, stranger.credential({ ...owner, iss: provider.issuer })],
    ];
    for (const [statusCode, credential] of cases) {
      await assert.rejects(library(hub, credential).sendToAll('x'), { statusCode });
      await assert.rejects(library(hub, credential).userExists('ann'), { statusCode });
    }
  } finally {
    await stranger.end();
  }
});
