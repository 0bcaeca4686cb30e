// The official tunnel: what Azure's tools and its Socket.IO library carry events and REST calls with, unmodified.
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, test } from 'node:test';

import { Mailbox, eventually } from '../../js/lib/mailbox.mjs';
import { PRIMARY_KEY, Service } from '../../js/lib/service.mjs';
import { Socket, refusal } from '../../js/lib/socket.mjs';
import { Proxy } from '../lib/proxy.mjs';
import { ALL_ROLES, Stage } from '../lib/stage.mjs';

// The package exports its tunnel to itself alone.
const proxies = createRequire(import.meta.url)('@azure/web-pubsub-socket.io/dist/serverProxies/index.js');

const stage = await Stage.set({
  configuration: () => `
[[defaults.event_handler]]
url_template = "tunnel:///api/webpubsub/hubs/{hub}/?event={event}"
system_events = ["connect", "connected", "disconnected"]`,
});
after(() => stage.end().finally(() => stage.clear()));

const line = (address) => `Endpoint=http://${address};AccessKey=${PRIMARY_KEY};Version=1.0;`;

/** Opens a tunnel from a hub to the Express upstream; returns a function that ends it. */
async function tunnel(hub, address = stage.service.address) {
  const proxy = proxies.HttpServerProxy.fromConnectionString(line(address), hub.name, { target: stage.upstream.url });
  const stop = new AbortController();
  await proxy.runAsync(undefined, undefined, stop.signal);
  return () => {
    stop.abort();
    proxy._tunnel.stop();
  };
}

test('events reach an Express upstream through the tunnel, and its answers the client', async () => {
  const handleUserEvent = (request, response) => response.success(`${request.data}!`, 'text');
  const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.success({ userId: 'ben' }), handleUserEvent } });
  const close = await tunnel(hub);
  const client = await hub.client({ userId: 'ann' });
  assert.equal((await hub.upstream.connects.next()).context.userId, 'ann');
  assert.equal((await hub.upstream.connecteds.next()).context.userId, 'ben');
  await client.sdk.sendEvent('ask', 'really', 'text');
  assert.equal((await client.next()).data, 'really!');
  await client.sdk.sendEvent('ask', 'x'.repeat(500_000), 'text');
  assert.equal((await client.next()).data.length, 500_001);
  await client.stop();
  await hub.upstream.disconnecteds.next();
  assert.ok(hub.upstream.requests.every(({ method }) => method === 'POST'), 'a tunnel is not asked whether it wants events');
  close();
});

test('with several tunnels one that is lost is not missed', async () => {
  const hub = stage.hub({ handlers: { handleUserEvent: (request, response) => response.success(request.data, 'text') } });
  const proxy = await stage.proxy();
  const closes = [await tunnel(hub, proxy.address), await tunnel(hub)];
  const client = await hub.client({ userId: 'ann' });
  for (let at = 0; at < 40; at += 1) {
    if (at === 20) proxy.cut();
    await client.sdk.sendEvent('ask', `${at}`, 'text');
    assert.equal((await client.next()).data, `${at}`);
  }
  await client.stop();
  await hub.upstream.disconnecteds.next();
  for (const close of closes) close();
});

test('a client that comes to a hub without a tunnel is refused', async () => {
  const hub = stage.hub();
  assert.equal((await refusal(await hub.url({ userId: 'ann' }))).status, 503);
});

test('the REST calls of the Socket.IO library, whose server handles the events itself', async () => {
  const hub = stage.hub();
  const requests = new Mailbox('an event');
  const handler = (request, response) => {
    const name = [request.headers['ce-eventname']].flat()[0];
    requests.put({ name, path: request.path });
    response.statusCode = name === 'connect' ? 200 : 204;
    response.end(name === 'connect' ? JSON.stringify({ groups: ['first'] }) : '');
  };
  const server = proxies.InprocessServerProxy.fromConnectionString(line(stage.service.address), hub.name, handler);
  await server.runAsync();
  const client = await hub.client({ userId: 'ann', roles: ALL_ROLES });
  assert.deepEqual(await requests.next(), { name: 'connect', path: `/api/webpubsub/hubs/${hub.name}/` });
  assert.equal((await requests.next()).name, 'connected');
  await server.sendToConnection(client.id, 'to the connection');
  await server.sendToAll('to all', { filter: "userId eq 'ann'" });
  await server.group('first').sendToAll('to the group');
  await server.addConnectionsToGroups(['second'], `connectionId eq '${client.id}'`);
  await server.group('second').sendToAll('to the second');
  await server.removeConnectionsFromGroups(['second'], `connectionId eq '${client.id}'`);
  await server.group('first').removeConnection(client.id);
  await server.group('first').sendToAll('to nobody');
  await server.group('second').sendToAll('to nobody');
  await server.sendToAll('the end');
  for (const data of ['to the connection', 'to all', 'to the group', 'to the second', 'the end']) {
    assert.equal((await client.next()).data, data);
  }
  // In their order, though nobody waits in between.
  await Promise.all(Array.from({ length: 50 }, (_, at) => server.sendToAll(`${at}`)));
  for (let at = 0; at < 50; at += 1) assert.equal((await client.next()).data, `${at}`);
  await client.stop();
  assert.equal((await requests.next()).name, 'disconnected');
  server.stop();
});

test('a service that ends sends its tunnels elsewhere, and they come to the next one', async () => {
  const configuration = '[[defaults.event_handler]]\nurl_template = "tunnel:///e"\nsystem_events = ["connect"]';
  const first = await Service.start({ configuration });
  const proxy = await Proxy.start(first.address);
  const handler = (_, response) => {
    response.statusCode = 204;
    response.end();
  };
  const server = proxies.InprocessServerProxy.fromConnectionString(line(proxy.address), 'chat', handler);
  await server.runAsync();
  assert.deepEqual(await first.stop(), { code: 0, signal: null }, first.log);
  assert.match(first.log, /a tunnel has ended.*Shutdown/);
  const second = await Service.start({ configuration });
  proxy.target = second.address;
  const { url } = await stage.serviceOf('chat').getClientAccessToken({ userId: 'ann' });
  const moved = new URL(url);
  moved.host = second.address;
  await eventually(async () => second.log.includes('a tunnel is open'), 'the tunnel of the second service');
  const socket = await Socket.open(moved.toString());
  socket.terminate();
  server.stop();
  assert.deepEqual(await second.stop(), { code: 0, signal: null }, second.log);
  await proxy.end();
  await Promise.all([first.clear(), second.clear()]);
});
