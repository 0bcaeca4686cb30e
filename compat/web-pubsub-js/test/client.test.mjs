// The official client with each of the four subprotocols: starting and stopping, groups, events, acknowledgements, reconnecting.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import {
  SendMessageError,
  WebPubSubClient,
  WebPubSubJsonProtocol,
  WebPubSubJsonReliableProtocol,
} from '@azure/web-pubsub-client';

import { deferred } from '../../js/lib/mailbox.mjs';
import { binary, text } from '../../js/lib/socket.mjs';
import { Observed, arrayBuffer, fromGroup, fromServer } from '../lib/client.mjs';
import { any, protobufProtocol, protobufReliableProtocol } from '../lib/protobuf-protocol.mjs';
import { ALL_ROLES, Stage } from '../lib/stage.mjs';

const stage = await Stage.set({
  upstream: true,
  configuration: (url) => `
[[hub]]
name = "no_user_events"
[[hub.event_handler]]
url_template = ${JSON.stringify(`${url}/api/webpubsub/hubs/{hub}/`)}
user_event_pattern = "only_this"
[[hub]]
name = "anonymous"
anonymous_connect = "allow"`,
});
after(() => stage.end().finally(() => stage.clear()));

const PLAIN = { contentType: 'text/plain' };
const BYTES = [0, 1, 127, 128, 255];
const ANY = any('type.googleapis.com/some.Type', BYTES);

/** Each of the four, and whether sender and JSON are told: protobuf messages name no sender. */
const protocols = [WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol, protobufProtocol, protobufReliableProtocol];
const isJson = (protocol) => protocol().name.startsWith('json');

const forbidden = { name: 'SendMessageError', errorDetail: { name: 'Forbidden', message: 'Permission denied.' } };

for (const protocol of protocols) {
  const { name, isReliableSubProtocol } = protocol();
  const start = (hub, grant, options) => hub.client({ roles: ALL_ROLES, ...grant }, { protocol: protocol(), ...options });
  /** The sender as clients of this subprotocol are told. */
  const sender = (user) => (isJson(protocol) ? user : undefined);

  test(`${name}: a client starts, stops and starts again`, async () => {
    const hub = stage.hub();
    const client = hub.prepare({ userId: 'ann' }, { protocol: protocol() });
    const { connectionId, userId } = await client.start();
    assert.equal(userId, 'ann');
    assert.equal((await hub.upstream.connecteds.next()).context.connectionId, connectionId);
    await assert.rejects(client.sdk.start(), /Stopped/);
    await client.stop();
    assert.equal((await client.disconnects.next()).connectionId, connectionId);
    await assert.rejects(client.sdk.joinGroup('g'), { name: 'SendMessageError' });
    assert.equal((await hub.upstream.disconnecteds.next()).context.connectionId, connectionId);
    const second = await client.start();
    assert.notEqual(second.connectionId, connectionId);
    assert.equal(await hub.service.connectionExists(connectionId), false);
    assert.equal(await hub.service.connectionExists(second.connectionId), true);
    client.sdk.stop();
    client.sdk.stop();
    await client.stops.next();
  });

  test(`${name}: a client joins, sends, leaves`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub, { userId: 'ann' }), await start(hub, { userId: 'bob' })];
    const group = 'Räume / 1?&';
    const say = (data) => ann.sdk.sendToGroup(group, data, 'text');
    await say('nobody is there');
    const { ackId, isDuplicated } = await bob.sdk.joinGroup(group);
    assert.equal(typeof ackId, 'number');
    assert.equal(isDuplicated, false);
    await bob.sdk.joinGroup(group);
    await say('bob is there');
    await ann.sdk.joinGroup(group);
    await say('both are there');
    await bob.sdk.leaveGroup(group);
    await bob.sdk.leaveGroup(group);
    await say('ann is there');
    await ann.sdk.sendToGroup(group.toLowerCase(), 'elsewhere', 'text');
    const said = (data) => fromGroup(group, 'text', data, sender('ann'));
    await hub.got([ann, said('both are there'), said('ann is there')], [bob, said('bob is there'), said('both are there')]);
  });

  test(`${name}: every type of data goes from client to clients of every kind`, async () => {
    const hub = stage.hub();
    const groups = ['g'];
    const ann = await start(hub, { userId: 'ann', groups });
    const json = await hub.client({ groups });
    const proto = await hub.client({ groups }, { protocol: protobufReliableProtocol() });
    const simple = await hub.socket({ groups });
    const contents = [
      ['ünïcode 🎉', 'text'],
      ['', 'text'],
      [{ a: [1, null, 'ü'] }, 'json'],
      ['a string', 'json'],
      [0, 'json'],
      [arrayBuffer(BYTES), 'binary'],
      [ANY, 'protobuf'],
    ];
    for (const [data, dataType] of contents) await ann.sdk.sendToGroup('g', data, dataType);
    const bytes = (data) => (data instanceof ArrayBuffer ? Buffer.from(data) : data);
    const messages = (user) => contents.map(([data, dataType]) => fromGroup('g', dataType, bytes(data), user));
    // Protobuf clients get JSON as a text: every one of them understands that.
    const asText = messages().map((message) =>
      message.dataType === 'json' ? { ...message, dataType: 'text', data: JSON.stringify(message.data) } : message,
    );
    await hub.got(
      [ann, ...(isJson(protocol) ? messages(sender('ann')) : asText)],
      [json, ...messages('ann')],
      [proto, ...asText],
      [simple, text('ünïcode 🎉'), text(''), text('{"a":[1,null,"ü"]}'), text('"a string"'), text('0'), binary(BYTES), binary(Buffer.from(ANY))],
    );
  });

  test(`${name}: who sends hears itself, unless it asks not to`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub, { userId: 'ann', groups: ['g'] }), await start(hub, { groups: ['g'] })];
    await ann.sdk.sendToGroup('g', 'with', 'text', { noEcho: false });
    await ann.sdk.sendToGroup('g', 'without', 'text', { noEcho: true });
    const said = (data) => fromGroup('g', 'text', data, sender('ann'));
    await hub.got([ann, said('with')], [bob, said('with'), said('without')]);
  });

  test(`${name}: a message may go without an acknowledgement`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub, { userId: 'ann' }), await start(hub, { groups: ['g', 'end'] })];
    const result = await ann.sdk.sendToGroup('g', 'x', 'text', { fireAndForget: true });
    assert.deepEqual(result, { isDuplicated: false });
    assert.deepEqual(await ann.sdk.sendEvent('e', 'y', 'text', { fireAndForget: true }), { isDuplicated: false });
    assert.equal((await hub.upstream.events.next()).data, 'y');
    // One that is not allowed says nothing and does no harm.
    const eve = await hub.client({ userId: 'eve' }, { protocol: protocol() });
    await eve.sdk.sendToGroup('g', 'not allowed', 'text', { fireAndForget: true });
    await eve.sdk.sendEvent('after', 'z', 'text');
    await ann.sdk.sendToGroup('end', '', 'text');
    await hub.got([bob, fromGroup('g', 'text', 'x', sender('ann')), fromGroup('end', 'text', '', sender('ann'))], [eve], [ann]);
  });

  test(`${name}: an ack id that was used counts as done and is not done again`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub, { userId: 'ann' }), await start(hub, { groups: ['g'] })];
    const once = { ackId: 4_000_000_000 };
    assert.deepEqual(await ann.sdk.sendToGroup('g', 'one', 'text', once), { ...once, isDuplicated: false });
    assert.deepEqual(await ann.sdk.sendToGroup('g', 'two', 'text', once), { ...once, isDuplicated: true });
    assert.deepEqual(await ann.sdk.sendEvent('e', 'one', 'text', { ackId: 7 }), { ackId: 7, isDuplicated: false });
    assert.deepEqual(await ann.sdk.sendEvent('e', 'two', 'text', { ackId: 7 }), { ackId: 7, isDuplicated: true });
    assert.deepEqual(await ann.sdk.joinGroup('h', { ackId: 8 }), { ackId: 8, isDuplicated: false });
    assert.deepEqual(await ann.sdk.leaveGroup('h', { ackId: 8 }), { ackId: 8, isDuplicated: true });
    // Ids are of one connection.
    assert.deepEqual(await bob.sdk.sendToGroup('g', 'three', 'text', once), { ...once, isDuplicated: false });
    await hub.service.group('h').sendToAll('still a member', PLAIN);
    await hub.got(
      [ann, fromGroup('h', 'text', 'still a member')],
      [bob, fromGroup('g', 'text', 'one', sender('ann')), fromGroup('g', 'text', 'three')],
    );
    assert.deepEqual([(await hub.upstream.events.next()).data, hub.upstream.events.untaken], ['one', []]);
  });

  test(`${name}: what is not allowed is forbidden, and an ack id is not used up by it`, async () => {
    const hub = stage.hub();
    const client = await hub.client({ userId: 'ann' }, { protocol: protocol() });
    const once = { ackId: 9 };
    await assert.rejects(client.sdk.joinGroup('g', once), { ...forbidden, ackId: 9 });
    await assert.rejects(client.sdk.leaveGroup('g'), forbidden);
    await assert.rejects(client.sdk.sendToGroup('g', 'x', 'text', { ackId: 10 }), { ...forbidden, ackId: 10 });
    await hub.service.grantPermission(client.id, 'joinLeaveGroup', { targetName: 'g' });
    assert.deepEqual(await client.sdk.joinGroup('g', once), { ...once, isDuplicated: false });
    await assert.rejects(client.sdk.sendToGroup('g', 'x', 'text', { ackId: 10 }), forbidden);
    await hub.got([client]);
  });

  test(`${name}: an event reaches the upstream, and its answer the client before the event counts as done`, async () => {
    const hub = stage.hub({
      handlers: {
        handleUserEvent: ({ context, data, dataType }, response) => {
          if (context.eventName === 'silent') response.success();
          else response.success(dataType === 'json' ? JSON.stringify({ got: data }) : data, dataType);
        },
      },
    });
    const client = await start(hub, { userId: 'ann' });
    const sent = [
      ['text', 'ünïcode 🎉', 'ünïcode 🎉', 'ünïcode 🎉'],
      ['binary', arrayBuffer(BYTES), Buffer.from(BYTES), Buffer.from(BYTES)],
      ['json', { a: [1, null, 'ü'] }, { a: [1, null, 'ü'] }, { got: { a: [1, null, 'ü'] } }],
      ['json', 'a string', 'a string', { got: 'a string' }],
      ['json', false, false, { got: false }],
    ];
    for (const [dataType, data, arrived, answer] of sent) {
      await client.sdk.sendEvent('some.event-1_x', data, dataType);
      const [message] = client.untaken;
      const isText = dataType === 'json' && !isJson(protocol);
      assert.deepEqual(message, isText ? fromServer('text', JSON.stringify(answer)) : fromServer(dataType, answer));
      await client.next();
      const event = await hub.upstream.events.next();
      assert.equal(event.context.eventName, 'some.event-1_x');
      assert.equal(event.context.connectionId, client.id);
      assert.equal(event.context.userId, 'ann');
      assert.equal(event.dataType, dataType);
      assert.deepEqual(event.data, arrived);
    }
    await client.sdk.sendEvent('silent', 'x', 'text');
    await hub.got([client]);
  });

  test(`${name}: an event that fails is told so, and the connection lives on`, async () => {
    const hub = stage.hub({
      handlers: { handleUserEvent: ({ data }, response) => response.fail(Number(data), 'a detail for nobody else') },
    });
    const client = await start(hub, { userId: 'ann' });
    for (const status of ['400', '401', '404', '500', '503']) {
      await assert.rejects(client.sdk.sendEvent('e', status, 'text'), (error) => {
        assert.ok(error instanceof SendMessageError);
        assert.equal(error.errorDetail.name, 'InternalServerError');
        assert.equal(typeof error.errorDetail.message, 'string');
        return true;
      });
    }
    // A failure is not remembered.
    await assert.rejects(client.sdk.sendEvent('e', '500', 'text', { ackId: 5 }), { ackId: 5 });
    await assert.rejects(client.sdk.sendEvent('e', '500', 'text', { ackId: 5 }), { ackId: 5 });
    await hub.got([client]);
  });

  test(`${name}: events of one client are handled one after another`, async () => {
    const open = deferred();
    const hub = stage.hub({
      handlers: {
        handleUserEvent: async ({ data }, response) => {
          if (data === 'first') await open.promise;
          response.success(data, 'text');
        },
      },
    });
    const [ann, bob] = [await start(hub, { userId: 'ann' }), await start(hub, { userId: 'bob' })];
    const both = [ann.sdk.sendEvent('e', 'first', 'text'), ann.sdk.sendEvent('e', 'second', 'text')];
    await hub.upstream.events.next();
    // Another client does not wait.
    await bob.sdk.sendEvent('e', 'other', 'text');
    assert.equal((await hub.upstream.events.next()).context.userId, 'bob');
    assert.deepEqual(hub.upstream.events.untaken, []);
    open.resolve();
    await Promise.all(both);
    await hub.got([ann, fromServer('text', 'first'), fromServer('text', 'second')], [bob, fromServer('text', 'other')]);
  });

  test(`${name}: sequence ids count data messages, and only a reliable client has them`, async () => {
    const hub = stage.hub();
    const client = await start(hub, { groups: ['g'] });
    await client.sdk.joinGroup('h');
    await client.sdk.sendToGroup('g', 'one', 'text');
    await hub.service.sendToConnection(client.id, 'two');
    await client.sdk.sendEvent('e', 'x', 'text');
    await hub.got([client, fromGroup('g', 'text', 'one'), fromServer(isJson(protocol) ? 'json' : 'text', isJson(protocol) ? 'two' : '"two"')]);
    assert.deepEqual(client.sequenceIds, isReliableSubProtocol ? [1, 2, 3] : []);
  });

  test(`${name}: a client that is closed by the server makes a new connection and joins its groups again`, async () => {
    const hub = stage.hub();
    const client = await start(hub, { userId: 'ann', groups: ['from token'] });
    for (const group of ['stays', 'left']) await client.sdk.joinGroup(group);
    await client.sdk.leaveGroup('left');
    const first = client.id;
    await hub.service.closeConnection(first, { reason: 'just so' });
    const { connectionId, message } = await client.disconnects.next();
    assert.deepEqual([connectionId, message.message], [first, 'just so']);
    assert.notEqual((await client.connected()).connectionId, first);
    for (const group of ['stays', 'left', 'from token']) await hub.service.group(group).sendToAll(group, PLAIN);
    await hub.got([client, fromGroup('stays', 'text', 'stays'), fromGroup('from token', 'text', 'from token')]);
    assert.deepEqual(client.rejoinFailures.untaken, []);
    assert.deepEqual(client.stops.untaken, []);
    if (isReliableSubProtocol) assert.deepEqual(client.sequenceIds, [1, 2, 3]);
  });

  test(`${name}: a client may do without joining again, and without connecting again`, async () => {
    const hub = stage.hub();
    const forgetful = await start(hub, {}, { autoRejoinGroups: false });
    await forgetful.sdk.joinGroup('g');
    const once = await start(hub, {}, { autoReconnect: false });
    await hub.service.closeAllConnections({ reason: 'just so' });
    await forgetful.connected();
    assert.equal((await once.disconnects.next()).message.message, 'just so');
    await once.stops.next();
    assert.equal(await hub.service.groupExists('g'), false);
    assert.deepEqual(once.connects.untaken, []);
    await once.start();
    await hub.got([once], [forgetful]);
  });

  test(`${name}: a client whose right to a group is gone is told that it could not join again`, async () => {
    const hub = stage.hub();
    const grants = [{ roles: ALL_ROLES }, { roles: ['webpubsub.joinLeaveGroup.b'] }];
    const client = stage.client({ getClientAccessUrl: () => hub.url(grants.shift()) }, { protocol: protocol() });
    await client.start();
    for (const group of ['a', 'b']) await client.sdk.joinGroup(group);
    await hub.service.closeConnection(client.id);
    await client.connected();
    const { group, error } = await client.rejoinFailures.next();
    assert.equal(group, 'a');
    assert.equal(error.errorDetail.name, 'Forbidden');
    for (const target of ['a', 'b']) await hub.service.group(target).sendToAll(target, PLAIN);
    await hub.got([client, fromGroup('b', 'text', 'b')]);
    assert.deepEqual(client.rejoinFailures.untaken, []);
  });

  test(`${name}: pings are answered`, async () => {
    const hub = stage.hub();
    const observed = new Observed(protocol());
    const [pings, pongs] = [observed.of('ping'), observed.of('pong')];
    const client = await hub.client({}, { protocol: observed, keepAliveIntervalInMs: 10 });
    for (let at = 0; at < 3; at += 1) {
      await pings.next();
      await pongs.next();
    }
    await hub.got([client]);
  });
}

test('a client without a token comes in where that is allowed', async () => {
  const { baseUrl } = await stage.hub({ name: 'anonymous' }).service.getClientAccessToken();
  const client = stage.client(baseUrl);
  assert.ok(!(await client.start()).userId);
});

test('a client that is not let in says so, and may try again', async () => {
  const hub = stage.hub({
    handlers: {
      handleConnect: (_, response) => (mayEnter ? response.success() : response.fail(403, 'not today')),
    },
  });
  let mayEnter = false;
  const client = hub.prepare();
  await assert.rejects(client.start(), /403/);
  await assert.rejects(client.start(), /403/);
  mayEnter = true;
  await client.start();

  const { baseUrl } = await hub.service.getClientAccessToken();
  await assert.rejects(stage.client(baseUrl).start(), /401/);
  await assert.rejects(stage.client(`${baseUrl}?access_token=nonsense`).start(), /401/);
  await assert.rejects(stage.client({ getClientAccessUrl: async () => 7 }).start(), /must be a string/);
  await assert.rejects(
    stage.client({ getClientAccessUrl: () => Promise.reject(new Error('no URL today')) }).start(),
    /no URL today/,
  );
});

test('the signal that a start is given goes to whoever finds the URL', async () => {
  const hub = stage.hub();
  const { signal } = new AbortController();
  const seen = [];
  const client = stage.client({
    getClientAccessUrl: async ({ abortSignal }) => {
      seen.push(abortSignal);
      return hub.url();
    },
  });
  await client.sdk.start({ abortSignal: signal });
  await client.connected();
  assert.deepEqual(seen, [signal]);
  client.sdk.stop();
  await client.stops.next();
});

test('a client without a choice is a reliable one, and each offers its subprotocol', async () => {
  const hub = stage.hub();
  const offered = async (options) => {
    await hub.client({}, options);
    return (await hub.upstream.connects.next()).subprotocols;
  };
  assert.deepEqual(await offered({}), ['json.reliable.webpubsub.azure.v1']);
  for (const protocol of protocols) assert.deepEqual(await offered({ protocol: protocol() }), [protocol().name]);
});

test('a subprotocol that the service does not know needs an upstream that chooses it', async () => {
  const own = { ...WebPubSubJsonProtocol(), name: 'my.own', isReliableSubProtocol: false };
  own.parseMessages = (input) => ({ kind: 'serverData', dataType: 'text', data: input });
  own.writeMessage = (message) => message.data;
  const hub = stage.hub({
    handlers: {
      handleConnect: ({ subprotocols }, response) => response.success({ subprotocol: subprotocols.at(-1) }),
      handleUserEvent: ({ data, context }, response) => response.success(`${context.eventName}: ${data}`, 'text'),
    },
  });
  const client = stage.client(await hub.url(), { protocol: own });
  // Without a connected message there is no connected event.
  await client.sdk.start();
  await client.sdk.sendEvent('never seen', 'raw', 'text', { fireAndForget: true });
  assert.deepEqual(await client.next(), fromServer('text', 'message: raw'));
  client.sdk.stop();
  await client.stops.next();
});

test('a request that is forbidden is repeated until it is allowed', async () => {
  const hub = stage.hub();
  const observed = new Observed(WebPubSubJsonReliableProtocol());
  const acks = observed.of('ack');
  const client = await hub.client({}, { protocol: observed, messageRetryOptions: { maxRetries: 1000, retryDelayInMs: 10 } });
  const joined = client.sdk.joinGroup('g');
  for (let at = 0; at < 3; at += 1) assert.equal((await acks.next()).error.name, 'Forbidden');
  await hub.service.grantPermission(client.id, 'joinLeaveGroup', { targetName: 'g' });
  assert.equal((await joined).isDuplicated, false);
  assert.equal(await hub.service.groupExists('g'), true);
});

test('a request is given up by its signal, and the client goes on', async () => {
  const open = deferred();
  const hub = stage.hub({
    handlers: {
      handleUserEvent: async (_, response) => {
        await open.promise;
        response.success();
      },
    },
  });
  const client = await hub.client({ roles: ALL_ROLES });
  const controller = new AbortController();
  const sent = client.sdk.sendEvent('e', 'x', 'text', { abortSignal: controller.signal });
  await hub.upstream.events.next();
  controller.abort();
  await assert.rejects(sent, { name: 'SendMessageError', message: 'Cancelled by abortSignal' });
  open.resolve();
  await client.sdk.sendEvent('e', 'y', 'text');
  await hub.got([client]);
});

test('an event that no handler takes fails', async () => {
  const hub = stage.hub({ name: 'no_user_events' });
  const client = await hub.client({ userId: 'ann' });
  await assert.rejects(client.sdk.sendEvent('other', 'x', 'text'), (error) => error.errorDetail.name === 'InternalServerError');
  await client.sdk.sendEvent('only_this', 'x', 'text');
  assert.equal((await hub.upstream.events.next()).context.eventName, 'only_this');
});

test('protobuf data is more than the official upstream reads: such an event fails', async () => {
  const hub = stage.hub();
  const client = await hub.client({ userId: 'ann' });
  await assert.rejects(client.sdk.sendEvent('e', ANY, 'protobuf'), (error) => error.errorDetail.name === 'InternalServerError');
  assert.equal(hub.upstream.requests.at(-1).headers['content-type'], 'application/x-protobuf');
  assert.equal(stage.upstream.takeStrangers().length, 1);
});

test('a listener that was taken off hears nothing more', async () => {
  const hub = stage.hub();
  const client = await hub.client({ groups: ['g'] });
  const heard = [];
  const listener = ({ message }) => heard.push(message.data);
  client.sdk.on('group-message', listener);
  await hub.service.group('g').sendToAll('one');
  await hub.got([client, fromGroup('g', 'json', 'one')]);
  client.sdk.off('group-message', listener);
  await hub.service.group('g').sendToAll('two');
  await hub.got([client, fromGroup('g', 'json', 'two')]);
  assert.deepEqual(heard, ['one']);
});

test('this file and its neighbours know every call of the library', () => {
  const methods = Object.getOwnPropertyNames(WebPubSubClient.prototype).filter((name) => !name.startsWith('_'));
  assert.deepEqual(methods.sort(), [
    'constructor',
    'invokeEvent',
    'joinGroup',
    'leaveGroup',
    'off',
    'on',
    'onGroupStream',
    'openGroupStream',
    'sendEvent',
    'sendToGroup',
    'start',
    'stop',
  ]);
});
