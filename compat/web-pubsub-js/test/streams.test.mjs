// The official client: long messages to a group, fragment by fragment.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from '@azure/web-pubsub-client';

import { Mailbox, within } from '../../js/lib/mailbox.mjs';
import { arrayBuffer, fromGroup } from '../lib/client.mjs';
import { protobufProtocol, protobufReliableProtocol } from '../lib/protobuf-protocol.mjs';
import { ALL_ROLES, Stage } from '../lib/stage.mjs';

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

/** Subscribes to streams; what each carries and how it ends goes into a mailbox when it has ended. */
function listen(client, options) {
  const streams = new Mailbox('the end of a stream');
  const begun = new Mailbox('the beginning of a stream');
  const subscription = client.sdk.onGroupStream(async (stream) => {
    begun.put(stream);
    const { groupName, streamId } = stream;
    const fragments = [];
    let error;
    try {
      for await (const { dataType, data, stream: position } of stream) {
        fragments.push([position.streamSequenceId, dataType, data instanceof ArrayBuffer ? Buffer.from(data) : data]);
      }
    } catch (reason) {
      error = reason;
    }
    streams.put({ groupName, streamId, fragments, error });
  }, options);
  return { begun, streams, subscription };
}

const inOrder = (...fragments) => fragments.map(([dataType, data], at) => [at + 1, dataType, data]);

for (const protocol of [WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol, protobufProtocol, protobufReliableProtocol]) {
  const { name } = protocol();
  const start = (hub, options) => hub.client({ groups: ['g'], roles: ALL_ROLES }, { protocol: protocol(), ...options });

  test(`${name}: a stream arrives fragment by fragment and ends`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub), await start(hub)];
    const { begun, streams } = listen(bob);
    const stream = await ann.sdk.openGroupStream('g', { noEcho: true });
    await stream.write('one', 'text');
    assert.equal((await begun.next()).streamId, stream.streamId);
    await stream.write('', 'text');
    await stream.write({ two: [2] }, 'json');
    await stream.write(arrayBuffer([3, 0, 255]), 'binary');
    await stream.end();
    const { groupName, streamId, fragments, error } = await streams.next();
    assert.deepEqual([groupName, streamId, error], ['g', stream.streamId, undefined]);
    const json = name.startsWith('json') ? ['json', { two: [2] }] : ['text', '{"two":[2]}'];
    assert.deepEqual(fragments, inOrder(['text', 'one'], ['text', ''], json, ['binary', Buffer.from([3, 0, 255])]));
    await assert.rejects(stream.write('late', 'text'), /completed/);
    await assert.rejects(stream.end(), /completed/);
    // They are messages of the group, too, the last of them empty; the sender has asked not to hear itself.
    const messages = [];
    for (let at = 0; at < 5; at += 1) messages.push(await bob.next());
    assert.deepEqual([messages[0], messages[4]], [fromGroup('g', 'text', 'one'), fromGroup('g', 'text', '')]);
    await hub.got([ann], [bob]);
  });

  test(`${name}: who sends a stream hears it, and the id may be chosen`, async () => {
    const hub = stage.hub();
    const ann = await start(hub);
    const { streams } = listen(ann);
    const stream = await ann.sdk.openGroupStream('g', { streamId: 'my own / ünïcode' });
    assert.equal(stream.streamId, 'my own / ünïcode');
    await assert.rejects(ann.sdk.openGroupStream('g', { streamId: 'my own / ünïcode' }), /already exists/);
    await stream.write('x', 'text');
    await stream.end();
    assert.deepEqual((await streams.next()).fragments, inOrder(['text', 'x']));
  });

  test(`${name}: many fragments of several streams do not get mixed up`, async () => {
    const hub = stage.hub();
    const [ann, bob, eve] = [await start(hub), await start(hub), await start(hub)];
    const { streams } = listen(eve);
    const texts = Array.from({ length: 100 }, (_, at) => `${at}`);
    const send = async (client) => {
      const stream = await client.sdk.openGroupStream('g');
      await Promise.all(texts.map((data) => stream.write(data, 'text')));
      await stream.end();
      return stream.streamId;
    };
    const ids = await Promise.all([send(ann), send(ann), send(bob)]);
    const ended = [await streams.next(), await streams.next(), await streams.next()];
    assert.deepEqual(ended.map(({ streamId }) => streamId).sort(), [...ids].sort());
    for (const { fragments } of ended) assert.deepEqual(fragments, inOrder(...texts.map((data) => ['text', data])));
  });

  test(`${name}: a stream that is not allowed is not opened`, async () => {
    const hub = stage.hub();
    const bob = await start(hub);
    const { streams } = listen(bob);
    const eve = await hub.client({ groups: ['g'] }, { protocol: protocol() });
    await assert.rejects(eve.sdk.openGroupStream('g'), { name: 'Forbidden' });
    await hub.got([bob], [eve]);
    assert.deepEqual(streams.untaken, []);
  });

  test(`${name}: a stream that is broken off says why`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub), await start(hub)];
    const { streams } = listen(bob);
    const stream = await ann.sdk.openGroupStream('g');
    await stream.write('x', 'text');
    await stream.abort({ message: 'out of ideas', userErrorCode: 'Blank' });
    const { fragments, error } = await streams.next();
    assert.deepEqual(fragments, inOrder(['text', 'x']));
    assert.deepEqual({ ...error }, { name: 'UserError', message: 'out of ideas', userErrorCode: 'Blank' });
  });

  test(`${name}: a stream that says nothing for too long ends, for both sides`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub), await start(hub)];
    const { streams } = listen(bob);
    const failures = new Mailbox('the failure of a stream');
    const stream = await ann.sdk.openGroupStream('g', { idleTimeoutInMs: 100 });
    stream.onError((error) => failures.put(error));
    await stream.write('x', 'text');
    assert.equal((await failures.next()).name, 'IdleTimeout');
    const { fragments, error } = await streams.next();
    assert.deepEqual(fragments, inOrder(['text', 'x']));
    assert.equal(error.name, 'IdleTimeout');
    await assert.rejects(stream.write('late', 'text'), /completed/);
  });

  test(`${name}: a stream ends with the connection of its sender`, async () => {
    const hub = stage.hub();
    const [ann, bob] = [await start(hub, { autoReconnect: false }), await start(hub)];
    const { streams } = listen(bob);
    const failures = new Mailbox('the failure of a stream');
    const stream = await ann.sdk.openGroupStream('g');
    stream.onError((error) => failures.put(error));
    await stream.write('x', 'text');
    await bob.next();
    await hub.service.closeConnection(ann.id);
    const { fragments, error } = await streams.next();
    assert.deepEqual(fragments, inOrder(['text', 'x']));
    assert.ok(['Cancelled', 'InternalServerError'].includes(error.name), error.name);
    await failures.next();
    await assert.rejects(stream.write('late', 'text'), /completed/);
    await ann.stops.next();
  });
}

for (const protocol of [WebPubSubJsonReliableProtocol, protobufReliableProtocol]) {
  test(`${protocol().name}: a stream goes on after its sender was away, and nothing is lost`, async () => {
    const hub = stage.hub();
    const proxy = await stage.proxy();
    const ann = await hub.client({ roles: ALL_ROLES }, { protocol: protocol(), proxy });
    const bob = await hub.client({ groups: ['g'] }, { protocol: protocol() });
    const { begun, streams } = listen(bob);
    const stream = await ann.sdk.openGroupStream('g');
    const texts = Array.from({ length: 60 }, (_, at) => `${at}`);
    for (const data of texts.slice(0, 20)) await stream.write(data, 'text');
    await begun.next();
    // Acknowledgements get lost as well.
    proxy.hold();
    const written = texts.slice(20, 40).map((data) => stream.write(data, 'text'));
    const back = proxy.attempt();
    proxy.cut();
    written.push(...texts.slice(40).map((data) => stream.write(data, 'text')));
    await back;
    await within(Promise.all(written), 'the writing of fragments');
    await stream.end();
    const { fragments, error } = await streams.next();
    assert.equal(error, undefined);
    assert.deepEqual(fragments, inOrder(...texts.map((data) => ['text', data])));
  });

  test(`${protocol().name}: a stream reaches a receiver that was away`, async () => {
    const hub = stage.hub();
    const proxy = await stage.proxy();
    const ann = await hub.client({ roles: ALL_ROLES }, { protocol: protocol() });
    const bob = await hub.client({ groups: ['g'] }, { protocol: protocol(), proxy });
    const { streams } = listen(bob, { handleFromStart: true });
    const noticed = proxy.attempt();
    proxy.refuse();
    await noticed;
    const stream = await ann.sdk.openGroupStream('g');
    await stream.write('x', 'text');
    await stream.end();
    proxy.allow();
    assert.deepEqual((await streams.next()).fragments, inOrder(['text', 'x']));
  });
}

test('a receiver chooses groups, and whether it wants streams that it has not heard from the start', async () => {
  const hub = stage.hub();
  const [ann, bob] = [
    await hub.client({ roles: ALL_ROLES }),
    await hub.client({ groups: ['g'], roles: ALL_ROLES }),
  ];
  const all = listen(bob);
  const whole = listen(bob, { handleFromStart: true });
  const others = listen(bob, { groupNames: ['h'] });
  const streams = { g: await ann.sdk.openGroupStream('g'), h: await ann.sdk.openGroupStream('h') };
  await streams.h.write('unheard', 'text');
  await streams.g.write('one', 'text');
  await all.begun.next();
  await bob.sdk.joinGroup('h');
  await streams.h.write('two', 'text');
  await streams.g.end();
  await streams.h.end();
  const ended = async (box) => {
    const { groupName, fragments } = await box.streams.next();
    return [groupName, fragments];
  };
  assert.deepEqual([await ended(all), await ended(all)].sort(), [
    ['g', [[1, 'text', 'one']]],
    ['h', [[2, 'text', 'two']]],
  ]);
  assert.deepEqual(await ended(whole), ['g', [[1, 'text', 'one']]]);
  assert.deepEqual(await ended(others), ['h', [[2, 'text', 'two']]]);
  assert.deepEqual(whole.streams.untaken, []);
  assert.deepEqual(others.streams.untaken, []);
});

test('a subscription that was closed hears nothing more', async () => {
  const hub = stage.hub();
  const ann = await hub.client({ groups: ['g'], roles: ALL_ROLES });
  const { begun, streams, subscription } = listen(ann);
  const stays = listen(ann);
  const stream = await ann.sdk.openGroupStream('g');
  await stream.write('one', 'text');
  await begun.next();
  assert.equal(subscription.isActive, true);
  await subscription.close();
  assert.equal(subscription.isActive, false);
  await stream.write('two', 'text');
  await stream.end();
  assert.deepEqual((await streams.next()).fragments, inOrder(['text', 'one']));
  assert.deepEqual((await stays.streams.next()).fragments, inOrder(['text', 'one'], ['text', 'two']));
});
