// The official client over a network that breaks: what was sent meanwhile arrives, once and in order, or the client starts anew.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';

import { WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from '@azure/web-pubsub-client';

import { Service } from '../../js/lib/service.mjs';
import { Socket } from '../../js/lib/socket.mjs';
import { Observed, fromGroup, fromServer } from '../lib/client.mjs';
import { protobufReliableProtocol } from '../lib/protobuf-protocol.mjs';
import { ALL_ROLES, Stage } from '../lib/stage.mjs';

/** Messages that the service keeps for a client that has not acknowledged them. */
const UNACKNOWLEDGED_MAX = 100;

const stage = await Stage.set({
  upstream: true,
  configuration: () => `[limits]\nrecovery_messages_max = ${UNACKNOWLEDGED_MAX}`,
});
after(() => stage.end().finally(() => stage.clear()));

const PLAIN = { contentType: 'text/plain' };
const numbers = (count, from = 0) => Array.from({ length: count }, (_, at) => `${from + at}`);
const served = (texts) => texts.map((data) => fromServer('text', data));

async function sendAll(hub, texts) {
  for (const data of texts) await hub.service.sendToAll(data, PLAIN);
}

/** Breaks the way to the service off and waits until the client has noticed, which it shows by trying to come back. */
async function lose(proxy) {
  const noticed = proxy.attempt();
  proxy.refuse();
  await noticed;
}

// Most of these wait for clients that wait for a second.
describe('over a network that breaks', { concurrency: 6 }, () => {
  for (const protocol of [WebPubSubJsonReliableProtocol, protobufReliableProtocol]) {
    const { name } = protocol();
    const start = async (hub, grant, options) => {
      const proxy = await stage.proxy();
      const client = await hub.client({ roles: ALL_ROLES, ...grant }, { protocol: protocol(), proxy, ...options });
      return { client, proxy };
    };

    test(`${name}: what is sent while a client is away arrives when it is back, and nobody notices that it was away`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub, { userId: 'ann', groups: ['g'] });
      await client.sdk.joinGroup('h');
      await sendAll(hub, numbers(10));
      await lose(proxy);
      await sendAll(hub, numbers(10, 10));
      await hub.service.sendToUser('ann', 'user', PLAIN);
      await hub.service.sendToConnection(client.id, 'connection', PLAIN);
      for (const group of ['g', 'h']) await hub.service.group(group).sendToAll(group, PLAIN);
      assert.equal(await hub.service.connectionExists(client.id), true);
      assert.equal(await hub.service.userExists('ann'), true);
      const listed = [];
      for await (const member of await hub.service.group('g').listConnections()) listed.push(member);
      assert.deepEqual(listed, [{ connectionId: client.id, userId: 'ann' }]);
      proxy.allow();
      await hub.got([
        client,
        ...served([...numbers(20), 'user', 'connection']),
        ...['g', 'h'].map((group) => fromGroup(group, 'text', group)),
      ]);
      // Still the same connection, with all its rights and groups.
      await client.sdk.sendToGroup('h', 'back', 'text');
      await client.sdk.sendEvent('e', 'back', 'text');
      assert.equal((await hub.upstream.events.next()).context.connectionId, client.id);
      await hub.got([client, fromGroup('h', 'text', 'back', name.startsWith('json') ? 'ann' : undefined)]);
      assert.deepEqual(client.sequenceIds, Array.from({ length: 27 }, (_, at) => at + 1));
      assert.deepEqual([client.connects.untaken, client.disconnects.untaken], [[], []]);
      const types = hub.upstream.requests.map(({ type }) => type).filter((type) => type?.includes('.sys.'));
      assert.deepEqual(types, ['azure.webpubsub.sys.connect', 'azure.webpubsub.sys.connected']);
    });

    test(`${name}: connections that break again and again lose nothing, repeat nothing, mix up nothing`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub);
      for (let round = 0; round < 5; round += 1) {
        const sent = numbers(20, round * 20);
        await sendAll(hub, sent.slice(0, 10));
        proxy.cut();
        await sendAll(hub, sent.slice(10));
        await hub.got([client, ...served(sent)]);
      }
      assert.deepEqual([client.connects.untaken, client.disconnects.untaken], [[], []]);
    });

    test(`${name}: acknowledged messages are not kept and not sent again`, async () => {
      const hub = stage.hub();
      const observed = new Observed(protocol());
      const [acks, data] = [observed.of('sequenceAck'), observed.of('serverData')];
      const { client, proxy } = await start(hub, {}, { protocol: observed });
      let sent = 0;
      // More than the service would keep.
      for (let round = 0; round < 3; round += 1) {
        await sendAll(hub, numbers(UNACKNOWLEDGED_MAX - 10, sent));
        sent += UNACKNOWLEDGED_MAX - 10;
        for (let ack = await acks.next(); ack.sequenceId < sent; ack = await acks.next());
      }
      // What was written last, the service has certainly read once it answers.
      await client.sdk.sendEvent('e', 'x', 'text');
      await lose(proxy);
      await sendAll(hub, ['after']);
      proxy.allow();
      await hub.got([client, ...served([...numbers(sent), 'after'])]);
      const ids = data.untaken.map(({ sequenceId }) => sequenceId);
      assert.deepEqual(ids, Array.from({ length: sent + 2 }, (_, at) => at + 1));
    });

    test(`${name}: a connection that is half open is replaced by its successor`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub);
      await sendAll(hub, ['before']);
      await hub.got([client, ...served(['before'])]);
      const [givenUp] = proxy.strand();
      await sendAll(hub, ['into the void', 'after']);
      await hub.got([client, ...served(['into the void', 'after'])]);
      await givenUp;
      assert.deepEqual([client.connects.untaken, client.disconnects.untaken], [[], []]);
    });

    test(`${name}: a client that hears nothing for too long closes, comes back and has missed nothing`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub, {}, { keepAliveTimeoutInMs: 300, keepAliveIntervalInMs: 50 });
      await sendAll(hub, ['before']);
      const back = proxy.attempt();
      proxy.deafen();
      await sendAll(hub, ['unheard']);
      await back;
      await sendAll(hub, ['after']);
      await hub.got([client, ...served(['before', 'unheard', 'after'])]);
      assert.deepEqual([client.connects.untaken, client.disconnects.untaken], [[], []]);
    });

    test(`${name}: a slow way delays and does nothing else`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub, { groups: ['g'] });
      proxy.hold();
      await sendAll(hub, numbers(30));
      const sent = client.sdk.sendToGroup('g', 'x', 'text');
      assert.deepEqual(client.untaken, []);
      proxy.release();
      await sent;
      await hub.got([client, ...served(numbers(30)), fromGroup('g', 'text', 'x')]);
    });

    test(`${name}: a request whose answer got lost is not done twice if it has an ack id`, async () => {
      const hub = stage.hub();
      const retry = { messageRetryOptions: { maxRetries: 1000, retryDelayInMs: 10 } };
      const { client, proxy } = await start(hub, { userId: 'ann' }, retry);
      const other = await hub.client({ groups: ['g'] });
      proxy.hold();
      const sent = client.sdk.sendToGroup('g', 'x', 'text', { ackId: 77 });
      const event = client.sdk.sendEvent('e', 'y', 'text', { ackId: 78 });
      await hub.upstream.events.next();
      assert.equal((await other.next()).data, 'x');
      proxy.cut();
      assert.deepEqual(await sent, { ackId: 77, isDuplicated: true });
      assert.equal((await event).ackId, 78);
      await hub.got([client], [other]);
      assert.deepEqual(hub.upstream.events.untaken, []);
    });

    test(`${name}: a request whose answer got lost fails if nobody repeats it`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub);
      proxy.hold();
      const sent = assert.rejects(client.sdk.sendToGroup('g', 'x', 'text'), { name: 'SendMessageError', message: /disconnected/ });
      proxy.cut();
      await sent;
      await hub.got([client]);
    });

    test(`${name}: who was closed while away makes a new connection and joins its groups again`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub, { userId: 'ann' });
      await client.sdk.joinGroup('g');
      const { id } = client;
      await lose(proxy);
      await sendAll(hub, ['lost with the connection']);
      await hub.service.closeConnection(id);
      assert.equal(await hub.service.connectionExists(id), false);
      assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, id);
      proxy.allow();
      assert.equal((await client.disconnects.next()).connectionId, id);
      assert.notEqual((await client.connected()).connectionId, id);
      await hub.service.group('g').sendToAll('again', PLAIN);
      await hub.got([client, fromGroup('g', 'text', 'again')]);
      assert.deepEqual(client.sequenceIds, [1, 2]);
    });

    test(`${name}: who missed more than the service keeps makes a new connection`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub, { userId: 'ann' });
      const { id } = client;
      await lose(proxy);
      await sendAll(hub, numbers(UNACKNOWLEDGED_MAX));
      assert.equal(await hub.service.connectionExists(id), true);
      await sendAll(hub, ['one too many']);
      assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, id);
      assert.equal(await hub.service.connectionExists(id), false);
      proxy.allow();
      await client.disconnects.next();
      await client.connected();
      await hub.got([client]);
    });

    test(`${name}: exactly as many messages as the service keeps are not too many`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub);
      await lose(proxy);
      await sendAll(hub, numbers(UNACKNOWLEDGED_MAX - 1));
      proxy.allow();
      await hub.got([client, ...served(numbers(UNACKNOWLEDGED_MAX - 1))]);
      assert.deepEqual(client.disconnects.untaken, []);
    });

    test(`${name}: messages whose lifetime is over are not sent to who comes back`, async () => {
      const hub = stage.hub();
      const { client, proxy } = await start(hub);
      await lose(proxy);
      await hub.service.sendToAll('short', { ...PLAIN, messageTtlSeconds: 1 });
      await hub.service.sendToAll('long', { ...PLAIN, messageTtlSeconds: 300 });
      await hub.service.sendToAll('for ever', PLAIN);
      // The client tries once each second.
      for (let at = 0; at < 3; at += 1) await proxy.attempt();
      proxy.allow();
      await hub.got([client, ...served(['long', 'for ever'])]);
      assert.deepEqual(client.disconnects.untaken, []);
    });

    test(`${name}: a client that stops is gone soon, although it could come back`, async () => {
      const hub = stage.hub();
      const { client } = await start(hub, { userId: 'ann' });
      await client.stop();
      const { context } = await hub.upstream.disconnecteds.next();
      assert.equal(context.connectionId, client.id);
      assert.equal(await hub.service.userExists('ann'), false);
    });

    test(`${name}: a proof for another connection, or none, is not accepted, and is answered after the handshake`, async () => {
      const hub = stage.hub();
      const url = await hub.url({ userId: 'ann' });
      const observed = new Observed(protocol());
      const connecteds = observed.of('connected');
      const client = await hub.client({ userId: 'ann' }, { protocol: observed });
      const { reconnectionToken } = await connecteds.next();
      assert.ok(reconnectionToken);
      const tries = [
        { awps_connection_id: client.id, awps_reconnection_token: `${reconnectionToken}x` },
        { awps_connection_id: client.id, awps_reconnection_token: 'nonsense' },
        { awps_connection_id: client.id },
        { awps_connection_id: 'nobody', awps_reconnection_token: reconnectionToken },
      ];
      for (const query of tries) {
        const socket = await Socket.open(`${url}&${new URLSearchParams(query)}`, { protocols: [name] });
        assert.equal(socket.protocol, name);
        assert.equal((await socket.end()).code, 1008);
        assert.deepEqual(socket.untaken, []);
      }
      // The connection itself is not touched by that.
      await hub.got([client]);
      assert.deepEqual(client.disconnects.untaken, []);
    });
  }

  test('the access token plays no part in coming back', async () => {
    const hub = stage.hub();
    const protocols = ['json.reliable.webpubsub.azure.v1'];
    const { baseUrl, url } = await hub.service.getClientAccessToken({ userId: 'ann' });
    const first = await Socket.open(url, { protocols });
    const { connectionId, reconnectionToken } = JSON.parse((await first.next()).data);
    first.terminate();
    const query = new URLSearchParams({
      access_token: 'long since expired',
      awps_connection_id: connectionId,
      awps_reconnection_token: reconnectionToken,
    });
    const second = await Socket.open(`${baseUrl}?${query}`, { protocols });
    const connected = JSON.parse((await second.next()).data);
    assert.equal(connected.event, 'connected');
    assert.equal(connected.connectionId, connectionId);
    assert.ok(connected.reconnectionToken);
    await second.close(1000);
    assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, connectionId);
  });

  test('a client whose subprotocol is not reliable starts anew at once', async () => {
    const hub = stage.hub();
    const proxy = await stage.proxy();
    const client = await hub.client({ roles: ALL_ROLES }, { protocol: WebPubSubJsonProtocol(), proxy });
    await client.sdk.joinGroup('g');
    const { id } = client;
    proxy.cut();
    assert.equal((await client.disconnects.next()).connectionId, id);
    assert.notEqual((await client.connected()).connectionId, id);
    assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, id);
    await hub.service.group('g').sendToAll('again', PLAIN);
    await hub.got([client, fromGroup('g', 'text', 'again')]);
  });

  test('who stays away too long is gone, and starts anew', async () => {
    const brief = await Stage.set({ upstream: true, configuration: () => '[limits]\nrecovery_seconds = 1' });
    try {
      const hub = brief.hub();
      const proxy = await brief.proxy();
      const client = await hub.client({ userId: 'ann', roles: ALL_ROLES }, { proxy });
      await client.sdk.joinGroup('g');
      const { id } = client;
      await lose(proxy);
      assert.equal(await hub.service.connectionExists(id), true);
      assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, id);
      assert.equal(await hub.service.userExists('ann'), false);
      proxy.allow();
      await client.disconnects.next();
      assert.notEqual((await client.connected()).connectionId, id);
      await hub.service.group('g').sendToAll('again', PLAIN);
      await hub.got([client, fromGroup('g', 'text', 'again')]);
      await brief.end();
    } finally {
      await brief.clear();
    }
  });

  test('clients outlive the service: they come to its successor and join their groups again', async () => {
    const brief = await Stage.set();
    try {
      const hub = brief.hub();
      const proxy = await brief.proxy();
      const client = await hub.client({ roles: ALL_ROLES }, { proxy, reconnectRetryOptions: { retryDelayInMs: 10 } });
      await client.sdk.joinGroup('g');
      const { id } = client;
      const noticed = proxy.attempt();
      await brief.service.stop();
      await noticed;
      const successor = await Service.start({ folder: brief.service.folder, configuration: brief.configuration });
      brief.follow(successor);
      assert.equal((await client.disconnects.next()).connectionId, id);
      assert.notEqual((await client.connected()).connectionId, id);
      const { service } = brief.hub({ name: hub.name });
      await service.group('g').sendToAll('again', PLAIN);
      assert.deepEqual(await client.next(), fromGroup('g', 'text', 'again'));
      await brief.end();
    } finally {
      await brief.clear();
    }
  });
});
