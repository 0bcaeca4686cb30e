// The official middleware as the upstream: what it is told, what its answers do.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { after, test } from 'node:test';

import { WebPubSubJsonProtocol } from '@azure/web-pubsub-client';
import { WebPubSubEventHandler } from '@azure/web-pubsub-express';

import { deferred } from '../../js/lib/mailbox.mjs';
import { PRIMARY_KEY, SECONDARY_KEY } from '../../js/lib/service.mjs';
import { Socket, binary, refusal, text } from '../../js/lib/socket.mjs';
import { fromGroup, fromServer } from '../lib/client.mjs';
import { ALL_ROLES, Stage } from '../lib/stage.mjs';

const JSON_PROTOCOLS = ['json.webpubsub.azure.v1', 'json.reliable.webpubsub.azure.v1'];
const BYTES = [0, 1, 127, 128, 255];
const PLAIN = { contentType: 'text/plain' };

const stage = await Stage.set({
  upstream: true,
  configuration: (url) => {
    const handler = (path, rest) => `[[hub.event_handler]]\nurl_template = ${JSON.stringify(url + path)}\n${rest}`;
    return `
[[hub]]
name = "anonymous"
anonymous_connect = "allow"
[[hub]]
name = "presence"
group_presence = { events = ["joined", "left"], groups = ["room", "team*"] }
[[hub]]
name = "split"
${handler('/one/{hub}/{event}', 'user_event_pattern = "a,b"\nsystem_events = ["connect"]')}
${handler('/two/{hub}', 'user_event_pattern = "b,c"\nsystem_events = ["connected", "disconnected"]')}
${handler('/three?code=secret&of={event}', '')}
[[hub]]
name = "only_connect"
${handler('/api/webpubsub/hubs/{hub}', 'user_event_pattern = "never"\nsystem_events = ["connect"]')}
[[hub]]
name = "away"
[[hub.event_handler]]
url_template = "http://127.0.0.1:1/"
system_events = ["connect"]`;
  },
});
after(() => stage.end().finally(() => stage.clear()));

/** Returns the status with which a client is turned away. */
const refused = async (hub, grant, options) => (await refusal(await hub.url(grant), options)).status;

test('connect: the upstream is told who comes, with which claims, query, headers and subprotocols', async () => {
  const hub = stage.hub();
  const groups = ['g', 'Räume / 1?&'];
  const url = `${await hub.url({ userId: 'Änn 🎉', roles: ALL_ROLES, groups })}&a=1&b=zwei%20%26&a=3&empty=`;
  const protocols = ['something.else', ...JSON_PROTOCOLS];
  const socket = await Socket.open(url, { protocols, headers: { 'X-Own': 'value', Cookie: 'c=1' } });
  const connect = await hub.upstream.connects.next();
  const { context, claims, query, queries, headers, subprotocols } = connect;
  const { connectionId, signature, userId, ...others } = context;
  assert.ok(connectionId && signature);
  // Node reads headers byte by byte.
  assert.equal(Buffer.from(userId, 'latin1').toString(), 'Änn 🎉');
  assert.deepEqual(others, { hub: hub.name, eventName: 'connect', origin: '127.0.0.1', states: {}, clientProtocol: 'default' });
  assert.deepEqual(claims.sub, ['Änn 🎉']);
  assert.deepEqual(claims.role, ALL_ROLES);
  assert.deepEqual(claims['webpubsub.group'], groups);
  for (const name of ['exp', 'iat', 'aud']) assert.ok(claims[name].every((value) => typeof value === 'string'), name);
  assert.deepEqual(query, { a: ['1', '3'], b: ['zwei &'], empty: [''] });
  assert.deepEqual(queries, query);
  const given = Object.fromEntries(Object.entries(headers).map(([name, values]) => [name.toLowerCase(), values]));
  assert.deepEqual(given['x-own'], ['value']);
  assert.deepEqual(given.cookie, ['c=1']);
  assert.deepEqual(given['sec-websocket-version'], ['13']);
  assert.equal(given.authorization, undefined);
  assert.deepEqual(subprotocols, protocols);
  assert.deepEqual(connect.clientCertificates ?? [], []);
  assert.equal(socket.protocol, JSON_PROTOCOLS[0]);
});

test('every request carries what the middleware and others rely on', async () => {
  const hub = stage.hub({ handlers: { handleUserEvent: (_, response) => response.success() } });
  const client = await hub.client({ userId: 'ann' }, { autoReconnect: false });
  await client.sdk.sendEvent('one', 'x', 'text');
  await client.sdk.sendEvent('two', { a: 1 }, 'json');
  await hub.service.closeConnection(client.id, { reason: 'enough' });
  assert.equal((await hub.upstream.disconnecteds.next()).reason, 'enough');
  const { requests } = hub.upstream;
  const events = requests.filter(({ method }) => method === 'POST');
  assert.deepEqual(events.map(({ headers }) => [headers['ce-type'], headers['ce-eventname'], headers['content-type'].split(';')[0]]), [
    ['azure.webpubsub.sys.connect', 'connect', 'application/json'],
    ['azure.webpubsub.sys.connected', 'connected', 'application/json'],
    ['azure.webpubsub.user.one', 'one', 'text/plain'],
    ['azure.webpubsub.user.two', 'two', 'application/json'],
    ['azure.webpubsub.sys.disconnected', 'disconnected', 'application/json'],
  ]);
  const signature = [PRIMARY_KEY, SECONDARY_KEY]
    .map((key) => `sha256=${createHmac('sha256', key).update(client.id).digest('hex')}`)
    .join(',');
  for (const { headers, url } of events) {
    assert.equal(headers['ce-specversion'], '1.0');
    assert.equal(headers['ce-awpsversion'], '1.0');
    assert.equal(headers['ce-source'], `/hubs/${hub.name}/client/${client.id}`);
    assert.match(headers['ce-time'], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.equal(headers['ce-signature'], signature);
    assert.equal(headers['ce-connectionid'], client.id);
    assert.equal(headers['ce-hub'], hub.name);
    assert.equal(headers['ce-userid'], 'ann');
    assert.equal(headers['webhook-request-origin'], '127.0.0.1');
    const isConnect = headers['ce-eventname'] === 'connect';
    assert.equal(headers['ce-subprotocol'], isConnect ? undefined : 'json.reliable.webpubsub.azure.v1');
    assert.equal(url, `/api/webpubsub/hubs/${hub.name}/?event=${headers['ce-eventname']}`);
  }
  const ids = events.map(({ headers }) => Number(headers['ce-id']));
  assert.deepEqual(ids, [0, 1, 2, 3, 4]);
  // Before all that the upstream was asked whether it wants it.
  const [validation] = requests;
  assert.equal(validation.method, 'OPTIONS');
  assert.equal(validation.url, `/api/webpubsub/hubs/${hub.name}/?event=validate`);
  assert.equal(validation.headers['ce-awpsversion'], '1.0');
  assert.equal(validation.headers['webhook-request-origin'], '127.0.0.1');
});

test('connect: the answer may name the user, the groups, the roles and the subprotocol', async () => {
  const hub = stage.hub({
    handlers: {
      handleConnect: (_, response) =>
        response.success({
          userId: 'somebody else',
          groups: ['given'],
          roles: ['webpubsub.sendToGroup.given'],
          subprotocol: JSON_PROTOCOLS[0],
        }),
    },
  });
  const client = await hub.client({ userId: 'ann', groups: ['asked'], roles: ALL_ROLES }, { protocol: WebPubSubJsonProtocol() });
  assert.equal(client.user, 'somebody else');
  assert.equal((await hub.upstream.connecteds.next()).context.userId, 'somebody else');
  assert.equal(await hub.service.userExists('ann'), false);
  for (const group of ['given', 'asked']) await hub.service.group(group).sendToAll(group, PLAIN);
  await client.sdk.sendToGroup('given', 'x', 'text');
  await assert.rejects(client.sdk.sendToGroup('asked', 'x', 'text'), { errorDetail: { name: 'Forbidden', message: 'Permission denied.' } });
  await assert.rejects(client.sdk.joinGroup('given'), { errorDetail: { name: 'Forbidden', message: 'Permission denied.' } });
  await hub.got([client, fromGroup('given', 'text', 'given'), fromGroup('given', 'text', 'x', 'somebody else')]);
});

test('connect: an answer that says nothing leaves what the token says', async () => {
  const answers = [undefined, {}, { groups: [] }, null];
  const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.success(answers.shift()) } });
  while (0 < answers.length) {
    const client = await hub.client({ userId: 'ann', groups: ['g'], roles: ALL_ROLES }, { protocol: WebPubSubJsonProtocol() });
    assert.equal(client.user, 'ann');
    await client.sdk.joinGroup('h');
    await hub.service.group('g').sendToAll('x', PLAIN);
    await hub.got([client, fromGroup('g', 'text', 'x')]);
    await client.stop();
    await hub.upstream.disconnecteds.next();
  }
});

test('connect: roles that are an empty list take all rights away', async () => {
  const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.success({ roles: [] }) } });
  const client = await hub.client({ roles: ALL_ROLES });
  await assert.rejects(client.sdk.joinGroup('g'), { errorDetail: { name: 'Forbidden', message: 'Permission denied.' } });
});

test('connect: without a token the upstream may still say who it is', async () => {
  const hub = stage.hub({ name: 'anonymous', handlers: { handleConnect: (_, response) => response.success({ userId: 'guest' }) } });
  const { baseUrl } = await hub.service.getClientAccessToken();
  const client = stage.client(baseUrl);
  assert.equal((await client.start()).userId, 'guest');
  const { context, claims } = await hub.upstream.connects.next();
  assert.equal(context.userId, undefined);
  assert.deepEqual(claims, {});
});

test('connect: a subprotocol is chosen from those that are offered', async () => {
  const chosen = async (subprotocol, protocols) => {
    const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.success({ subprotocol }) } });
    const socket = await Socket.open(await hub.url(), { protocols });
    return socket.protocol;
  };
  assert.equal(await chosen(undefined, []), '');
  assert.equal(await chosen(undefined, ['unknown', ...JSON_PROTOCOLS]), JSON_PROTOCOLS[0]);
  assert.equal(await chosen(JSON_PROTOCOLS[1], JSON_PROTOCOLS), JSON_PROTOCOLS[1]);
  assert.equal(await chosen('my.own', ['my.own', ...JSON_PROTOCOLS]), 'my.own');
});

test('connect: a refusal reaches the client with its status', async () => {
  for (const status of [400, 401, 403, 404, 429, 500, 503]) {
    const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.fail(status, 'a reason') } });
    assert.equal(await refused(hub, { userId: 'ann' }), status);
    assert.equal((await hub.upstream.connects.next()).context.userId, 'ann');
    assert.equal(await hub.service.userExists('ann'), false);
    assert.deepEqual([hub.upstream.connecteds.untaken, hub.upstream.disconnecteds.untaken], [[], []]);
  }
  const hub = stage.hub({ handlers: { handleConnect: (_, response) => response.failWith({ code: 401, detail: 'a reason' }) } });
  assert.equal(await refused(hub), 401);
});

test('connect: an upstream that is not there or does not know the hub lets nobody in', async () => {
  assert.equal(await refused(stage.hub({ name: 'away' })), 500);
  // The middleware passes on what is for another hub, and its application answers 404 to validation and event.
  const { url } = await stage.serviceOf('nobody_handles_this').getClientAccessToken();
  assert.equal((await refusal(url)).status, 500);
  assert.ok(0 < stage.upstream.takeStrangers().length);
});

test('connect: without a handler for it everybody with a token comes in', async () => {
  stage.upstream.bareHub('bare');
  const service = stage.serviceOf('bare');
  const { url } = await service.getClientAccessToken({ userId: 'ann', groups: ['g'] });
  const client = stage.client(url);
  assert.equal((await client.start()).userId, 'ann');
  // Events, too, are answered by success and nothing.
  await client.sdk.sendEvent('e', 'x', 'text');
  assert.deepEqual(client.untaken, []);
  assert.equal(await service.groupExists('g'), true);
});

test('connected comes once, after connect, and disconnected once, at the end', async () => {
  const hub = stage.hub();
  const simple = await hub.socket({ userId: 'ann' });
  const { context } = await hub.upstream.connecteds.next();
  assert.equal(context.eventName, 'connected');
  assert.equal(context.userId, 'ann');
  await simple.close(1000, 'bye');
  const disconnected = await hub.upstream.disconnecteds.next();
  assert.equal(disconnected.context.connectionId, context.connectionId);
  assert.equal(disconnected.context.eventName, 'disconnected');
  const types = hub.upstream.requests.filter(({ method }) => method === 'POST').map(({ type }) => type.split('.').pop());
  assert.deepEqual(types, ['connect', 'connected', 'disconnected']);

  const cut = await hub.socket({ userId: 'bob' });
  await hub.upstream.connecteds.next();
  cut.terminate();
  assert.equal((await hub.upstream.disconnecteds.next()).context.userId, 'bob');
});

test('an upstream that listens to connect alone hears of nothing else', async () => {
  const hub = stage.hub({ name: 'only_connect' });
  hub.upstream.hearsAll = false;
  const client = await hub.client({ userId: 'ann' }, { protocol: WebPubSubJsonProtocol() });
  await assert.rejects(client.sdk.sendEvent('e', 'x', 'text'));
  await client.stop();
  const again = await hub.client({ userId: 'ann' });
  const types = hub.upstream.requests.filter(({ method }) => method === 'POST').map(({ type }) => type);
  assert.deepEqual(types, Array(2).fill('azure.webpubsub.sys.connect'));
  await hub.got([again]);
});

test('events of simple clients are named message, whatever they hold', async () => {
  const hub = stage.hub({
    handlers: {
      handleUserEvent: ({ data, dataType }, response) => {
        if (data === 'nothing') response.success();
        else response.success(data, dataType);
      },
    },
  });
  const simple = await hub.socket({ userId: 'ann' });
  for (const data of ['ünïcode 🎉', '', '{"a":1}', 'nothing', Buffer.from(BYTES)]) {
    simple.send(data);
    const event = await hub.upstream.events.next();
    assert.equal(event.context.eventName, 'message');
    assert.equal(event.dataType, typeof data === 'string' ? 'text' : 'binary');
    assert.deepEqual(event.data, data);
  }
  // The empty text and the empty answer have become nothing.
  for (const answer of [text('ünïcode 🎉'), text('{"a":1}'), binary(BYTES)]) assert.deepEqual(await simple.next(), answer);
  await hub.got([simple]);
});

test('an answer of each type becomes a message of that type', async () => {
  const answers = [
    ['ünïcode 🎉', 'text', fromServer('text', 'ünïcode 🎉'), text('ünïcode 🎉')],
    ['{"a":[1,null,"ü"]}', 'json', fromServer('json', { a: [1, null, 'ü'] }), text('{"a":[1,null,"ü"]}')],
    [Buffer.from(BYTES), 'binary', fromServer('binary', Buffer.from(BYTES)), binary(BYTES)],
    ['untyped', undefined, fromServer('binary', Buffer.from('untyped')), binary('untyped')],
  ];
  let at = 0;
  const hub = stage.hub({
    handlers: {
      handleUserEvent: (_, response) => {
        const [data, dataType] = answers[Math.floor(at / 2)];
        at += 1;
        response.success(data, dataType);
      },
    },
  });
  const [client, simple] = [await hub.client(), await hub.socket()];
  for (const [, , message, raw] of answers) {
    await client.sdk.sendEvent('e', 'x', 'text');
    assert.deepEqual(await client.next(), message);
    simple.send('x');
    assert.deepEqual(await simple.next(), raw);
  }
});

test('an event that fails closes a simple client, and only that one', async () => {
  const hub = stage.hub({
    handlers: { handleUserEvent: ({ data }, response) => (data === 'bad' ? response.fail(400, 'no') : response.success(data, 'text')) },
  });
  const [one, two] = [await hub.socket({ userId: 'ann' }), await hub.socket({ userId: 'bob' })];
  one.send('bad');
  assert.equal((await one.end()).code, 1011);
  two.send('good');
  assert.deepEqual(await two.next(), text('good'));
  assert.equal((await hub.upstream.disconnecteds.next()).context.userId, 'ann');
});

test('states are kept for the connection and come back with each event', async () => {
  const hub = stage.hub({
    handlers: {
      handleConnect: (_, response) => {
        response.setState('name', 'ünïcode 🎉');
        response.setState('count', 0);
        response.success();
      },
      handleUserEvent: ({ context, data }, response) => {
        if (data === 'count') response.setState('count', context.states.count + 1);
        response.success();
      },
    },
  });
  const [ann, bob] = [await hub.client({ userId: 'ann' }, { autoReconnect: false }), await hub.socket({ userId: 'bob' })];
  const states = async (mailbox) => (await mailbox.next()).context.states;
  const name = 'ünïcode 🎉';
  assert.deepEqual(await states(hub.upstream.connecteds), { name, count: 0 });
  assert.deepEqual(await states(hub.upstream.connecteds), { name, count: 0 });
  for (const [data, before] of [['count', 0], ['count', 1], ['other', 2], ['count', 2]]) {
    await ann.sdk.sendEvent('e', data, 'text');
    const event = await hub.upstream.events.next();
    assert.equal(event.data, data);
    // What is set while an event is handled shows in its context as well.
    assert.deepEqual(event.context.states, { name, count: data === 'count' ? before + 1 : before });
  }
  await hub.service.closeConnection(ann.id);
  assert.deepEqual(await states(hub.upstream.disconnecteds), { name, count: 3 });
  await bob.close(1000);
  assert.deepEqual(await states(hub.upstream.disconnecteds), { name, count: 0 });
});

test('the first handler that wants an event gets it', async () => {
  const { upstream } = stage;
  const seen = [];
  const options = (path) => ({
    path,
    handleConnect: ({ context }, response) => {
      seen.push([path, context.eventName]);
      response.success();
    },
    handleUserEvent: ({ context }, response) => {
      seen.push([path, context.eventName]);
      response.success();
    },
    onConnected: ({ context }) => seen.push([path, context.eventName]),
    onDisconnected: ({ context }) => seen.push([path, context.eventName]),
  });
  const hub = stage.hub({ name: 'split', handlers: options('/three') });
  for (const path of ['/one/split', '/two/split']) {
    upstream.use(new WebPubSubEventHandler('split', options(path)));
  }
  const client = await hub.client({ userId: 'ann' }, { protocol: WebPubSubJsonProtocol() });
  for (const event of ['a', 'b', 'c', 'd']) await client.sdk.sendEvent(event, 'x', 'text');
  await client.stop();
  // The end of this client is in the record once the event of the next one is.
  const next = await hub.client({ userId: 'bob' });
  await next.sdk.sendEvent('a', 'x', 'text');
  assert.deepEqual(seen.filter(([, event]) => !event.endsWith('connected')), [
    ['/one/split', 'connect'],
    ['/one/split', 'a'],
    ['/one/split', 'b'],
    ['/two/split', 'c'],
    ['/three', 'd'],
    ['/one/split', 'connect'],
    ['/one/split', 'a'],
  ]);
  const posts = hub.upstream.requests.filter(({ method }) => method === 'POST').map(({ url }) => url);
  assert.ok(posts.includes('/one/split/connect') && posts.includes('/two/split') && posts.includes('/three?code=secret&of=d'), posts);
});

test('who joins and leaves the groups that matter is told', async () => {
  const hub = stage.hub({ name: 'presence' });
  const next = async (mailbox) => {
    const { context, group } = await mailbox.next();
    assert.equal(context.eventName, mailbox === hub.upstream.joins ? 'joined' : 'left');
    return [context.userId, context.connectionId, group];
  };
  const grant = { userId: 'ann', groups: ['team 1', 'other'], roles: ALL_ROLES };
  const ann = await hub.client(grant, { protocol: WebPubSubJsonProtocol() });
  const at = (group) => ['ann', ann.id, group];
  assert.deepEqual(await next(hub.upstream.joins), at('team 1'));
  for (const group of ['another', 'rooms', 'room', 'room']) await ann.sdk.joinGroup(group);
  assert.deepEqual(await next(hub.upstream.joins), at('room'));
  await hub.service.group('team 2').addConnection(ann.id);
  assert.deepEqual(await next(hub.upstream.joins), at('team 2'));
  await hub.service.group('team 3').addUser('ann');
  assert.deepEqual(await next(hub.upstream.joins), at('team 3'));

  for (const group of ['another', 'room', 'room']) await ann.sdk.leaveGroup(group);
  assert.deepEqual(await next(hub.upstream.leaves), at('room'));
  await hub.service.group('team 2').removeConnection(ann.id);
  assert.deepEqual(await next(hub.upstream.leaves), at('team 2'));
  await hub.service.removeConnectionsFromGroups(['other', 'team 3'], "userId eq 'ann'");
  assert.deepEqual(await next(hub.upstream.leaves), at('team 3'));
  await ann.stop();
  assert.deepEqual(await next(hub.upstream.leaves), at('team 1'));
  assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, ann.id);
  assert.deepEqual([hub.upstream.joins.untaken, hub.upstream.leaves.untaken], [[], []]);
});

test('allowedEndpoints: the service that is named is served, another one is not', async () => {
  const { url } = stage.service;
  const lists = [
    [[url], true],
    [['http://127.0.0.1'], true],
    [['https://elsewhere.example', url], true],
    [['https://elsewhere.example'], false],
    [['https://elsewhere.example', 'https://127.0.0.2'], false],
    [[], false],
  ];
  for (const [allowedEndpoints, isServed] of lists) {
    const hub = stage.hub({ handlers: { allowedEndpoints } });
    if (isServed) {
      const client = await hub.client({ userId: 'ann' });
      await client.sdk.sendEvent('e', 'x', 'text');
      assert.equal(hub.upstream.requests.filter(({ method }) => method === 'OPTIONS').length, 1, `${allowedEndpoints}`);
    } else {
      assert.equal(await refused(hub), 500, `${allowedEndpoints}`);
      assert.deepEqual(hub.upstream.connects.untaken, []);
    }
  }
});

test('answers that the service has to wait for hold up nobody else', async () => {
  const open = deferred();
  const hub = stage.hub({
    handlers: {
      handleConnect: async ({ query }, response) => {
        if (query.slow) await open.promise;
        response.success();
      },
    },
  });
  const slow = stage.client(`${await hub.url({ userId: 'slow' })}&slow=1`);
  const started = slow.start();
  await hub.upstream.connects.next();
  const quick = await hub.client({ userId: 'quick' });
  await quick.sdk.sendEvent('e', 'x', 'text');
  assert.equal(await hub.service.userExists('slow'), false);
  open.resolve();
  assert.equal((await started).userId, 'slow');
  await hub.got([slow], [quick]);
});

test('a client that an answer was meant for and that has gone does no harm', async () => {
  const open = deferred();
  const hub = stage.hub({
    handlers: {
      handleUserEvent: async ({ data }, response) => {
        if (data === 'slow') await open.promise;
        response.success(data, 'text');
      },
    },
  });
  const [one, two] = [await hub.socket({ userId: 'ann' }), await hub.socket({ userId: 'ann' })];
  one.send('slow');
  await hub.upstream.events.next();
  one.terminate();
  open.resolve();
  two.send('quick');
  assert.deepEqual(await two.next(), text('quick'));
  await hub.got([two]);
  assert.equal((await hub.upstream.disconnecteds.next()).context.userId, 'ann');
});

test('answers to a client are messages like others: they count in its sequence', async () => {
  const hub = stage.hub({ handlers: { handleUserEvent: ({ data }, response) => response.success(data, 'text') } });
  const [plain, reliable] = [await hub.client({}, { protocol: WebPubSubJsonProtocol() }), await hub.client()];
  for (const client of [plain, reliable]) {
    for (const data of ['one', 'two']) await client.sdk.sendEvent('e', data, 'text');
  }
  await hub.got([plain, fromServer('text', 'one'), fromServer('text', 'two')], [reliable, fromServer('text', 'one'), fromServer('text', 'two')]);
  assert.deepEqual([plain.sequenceIds, reliable.sequenceIds], [[], [1, 2, 3]]);
});
