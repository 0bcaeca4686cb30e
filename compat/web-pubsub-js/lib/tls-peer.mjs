/**
 * A program that knows of a service only what its environment says: a connection string with `https://`, the page of the chat room,
 * and, by `NODE_EXTRA_CA_CERTS`, whom to trust. It ends with 0 when everything is as it must be.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import tls from 'node:tls';

import { WebPubSubServiceClient } from '@azure/web-pubsub';
import { WebPubSubClient } from '@azure/web-pubsub-client';

const { WebPubSubConnectionString: connectionString, CHAT_URL: chatUrl } = process.env;
const PLAIN = { contentType: 'text/plain' };

// The official libraries as they are: they refuse http:// and find https:// in the connection string.
const service = new WebPubSubServiceClient(connectionString, 'secure');
assert.match(service.endpoint, /^https:/u);
const roles = ['webpubsub.joinLeaveGroup.room', 'webpubsub.sendToGroup.room'];
const { url } = await service.getClientAccessToken({ userId: 'ann', roles });
assert.match(url, /^wss:/u);

const client = new WebPubSubClient(url, { autoReconnect: false });
const received = [];
let arrived = () => {};
for (const kind of ['server-message', 'group-message']) {
  client.on(kind, ({ message }) => {
    received.push(message.data);
    arrived();
  });
}
const next = async () => {
  while (received.length === 0) await new Promise((resolve) => (arrived = resolve));
  return received.shift();
};
await client.start();
await client.joinGroup('room');
const long = 'é'.repeat(200_000);
await client.sendToGroup('room', long, 'text');
assert.equal(await next(), long);
await service.sendToAll('to all', PLAIN);
assert.equal(await next(), 'to all');
await service.group('room').sendToAll({ to: 'room' });
assert.deepEqual(await next(), { to: 'room' });
assert.equal(await service.userExists('ann'), true);
assert.equal(await service.hasPermission('nobody', 'joinLeaveGroup', { targetName: 'room' }), false);
const connections = [];
for await (const { userId } of await service.group('room').listConnections()) connections.push(userId);
assert.deepEqual(connections, ['ann']);
const stopped = new Promise((resolve) => client.on('disconnected', resolve));
await service.closeUserConnections('ann', { reason: 'enough' });
await stopped;

// The chat room: its page by https, and its functions, which the service calls by https when somebody comes.
const page = await fetch(chatUrl);
assert.equal(page.status, 200);
assert.match(page.headers.get('content-security-policy'), /connect-src 'self' https:\/\/\S+ wss:\/\//u);
const chat = new WebPubSubServiceClient(connectionString, 'chat');
const visitor = new WebPubSubClient((await chat.getClientAccessToken({ userId: 'bob' })).url);
await visitor.start();
visitor.stop();

/** Connects to the service and returns the socket, once its handshake is done. */
async function dial(options) {
  const { hostname: host, port } = new URL(service.endpoint);
  const socket = tls.connect({ host, port, ...options });
  await once(socket, 'secureConnect');
  return socket;
}

// An old version is refused, the one before the newest is not.
await assert.rejects(dial({ minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' }));
const socket = await dial({ maxVersion: 'TLSv1.2' });
assert.equal(socket.getProtocol(), 'TLSv1.2');
socket.destroy();

// The official client leaves timers behind that would keep the program alive for half a minute.
process.exit(0);
