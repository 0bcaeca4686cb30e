// The official server library: every way to send, who is reached and in which form it arrives.
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';

import { WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from '@azure/web-pubsub-client';

import { binary, text } from '../../js/lib/socket.mjs';
import { arrayBuffer, fromGroup, fromServer } from '../lib/client.mjs';
import { Stage } from '../lib/stage.mjs';

/** Bytes of a message that the service takes at most. */
const MESSAGE_BYTES_MAX = 1024 * 1024;

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

const PLAIN = { contentType: 'text/plain' };
const BYTES = [0, 1, 127, 128, 255, 10, 13];

/** Returns a body that is sent piece by piece, its length unknown. */
const parts = (...chunks) => () => Readable.from(chunks.map((chunk) => Buffer.from(chunk)));

/** Each message with its options, what a simple client gets, and type and data for the others. */
const forms = [
  ['zwei, ünïcode 🎉', PLAIN, text('zwei, ünïcode 🎉'), 'text', 'zwei, ünïcode 🎉'],
  ['', PLAIN, text(''), 'text', ''],
  ['a string', undefined, text('"a string"'), 'json', 'a string'],
  [{ a: [1, null, { b: 'ü"' }] }, undefined, text('{"a":[1,null,{"b":"ü\\""}]}'), 'json', { a: [1, null, { b: 'ü"' }] }],
  [[], undefined, text('[]'), 'json', []],
  [7.5, undefined, text('7.5'), 'json', 7.5],
  [false, undefined, text('false'), 'json', false],
  [Buffer.from(BYTES), undefined, binary(BYTES), 'binary', Buffer.from(BYTES)],
  [new Uint8Array(BYTES), undefined, binary(BYTES), 'binary', Buffer.from(BYTES)],
  [arrayBuffer(BYTES), undefined, binary(BYTES), 'binary', Buffer.from(BYTES)],
  [parts('a str', 'eam'), undefined, binary('a stream'), 'binary', Buffer.from('a stream')],
];

const receivers = async (hub) => [
  await hub.socket({ userId: 'ann', groups: ['g'] }),
  await hub.client({ userId: 'ann', groups: ['g'] }, { protocol: WebPubSubJsonProtocol() }),
  await hub.client({ userId: 'ann', groups: ['g'] }, { protocol: WebPubSubJsonReliableProtocol() }),
];

test('to all: every form of message, to every kind of client', async () => {
  const hub = stage.hub();
  const [simple, ...others] = await receivers(hub);
  for (const [message, options] of forms) await hub.service.sendToAll(message, options);
  const expected = forms.map(([, , , dataType, data]) => fromServer(dataType, data));
  await hub.got([simple, ...forms.map(([, , raw]) => raw)], ...others.map((client) => [client, ...expected]));
});

test('to a group: every form of message, to every kind of client', async () => {
  const hub = stage.hub();
  const [simple, ...others] = await receivers(hub);
  for (const [message, options] of forms) await hub.service.group('g').sendToAll(message, options);
  const expected = forms.map(([, , , dataType, data]) => fromGroup('g', dataType, data));
  await hub.got([simple, ...forms.map(([, , raw]) => raw)], ...others.map((client) => [client, ...expected]));
});

test('to a user: every form of message, to every kind of client', async () => {
  const hub = stage.hub();
  const [simple, ...others] = await receivers(hub);
  for (const [message, options] of forms) await hub.service.sendToUser('ann', message, options);
  const expected = forms.map(([, , , dataType, data]) => fromServer(dataType, data));
  await hub.got([simple, ...forms.map(([, , raw]) => raw)], ...others.map((client) => [client, ...expected]));
});

test('to a connection: every form of message, to this one alone', async () => {
  const hub = stage.hub();
  const [, one, two] = await receivers(hub);
  for (const [message, options] of forms) await hub.service.sendToConnection(one.id, message, options);
  const expected = forms.map(([, , , dataType, data]) => fromServer(dataType, data));
  await hub.got([one, ...expected], [two]);
});

test('text that is none stays in the library', async () => {
  const { service } = stage.hub();
  await assert.rejects(service.sendToAll({ a: 1 }, PLAIN), TypeError);
  await assert.rejects(service.sendToUser('ann', Buffer.from('x'), PLAIN), TypeError);
  await assert.rejects(service.sendToConnection('id', 7, PLAIN), TypeError);
  await assert.rejects(service.group('g').sendToAll([], PLAIN), TypeError);
});

test('connections that are excluded get nothing', async () => {
  const hub = stage.hub();
  const clients = [];
  for (let at = 0; at < 4; at += 1) clients.push(await hub.client({ groups: ['g'] }));
  const ids = clients.map(({ id }) => id);
  await hub.service.sendToAll('not 0', { ...PLAIN, excludedConnections: [ids[0]] });
  await hub.service.sendToAll('1, 3', { ...PLAIN, excludedConnections: [ids[0], ids[2], 'nobody', 'ä&=?'] });
  await hub.service.sendToAll('all', { ...PLAIN, excludedConnections: [] });
  await hub.service.group('g').sendToAll('not 1', { ...PLAIN, excludedConnections: [ids[1]] });
  await hub.service.group('g').sendToAll('none', { ...PLAIN, excludedConnections: ids });
  const all = (data) => fromServer('text', data);
  const not1 = fromGroup('g', 'text', 'not 1');
  await hub.got(
    [clients[0], all('all'), not1],
    [clients[1], all('not 0'), all('1, 3'), all('all')],
    [clients[2], all('not 0'), all('all'), not1],
    [clients[3], all('not 0'), all('1, 3'), all('all'), not1],
  );
});

test('filters choose connections', async () => {
  const hub = stage.hub();
  const json = { protocol: WebPubSubJsonProtocol() };
  const ann = await hub.client({ userId: 'ann', groups: ['red', 'blue'] }, json);
  const bob = await hub.client({ userId: 'bob', groups: ['red', "it's"] });
  const nobody = await hub.client({ groups: ['blue'] }, json);
  const clients = { a: ann, b: bob, n: nobody };
  const filters = [
    ['', 'abn'],
    ["userId eq 'ann'", 'a'],
    ["userId ne 'ann'", 'bn'],
    ['userId eq null', 'n'],
    ['USERID ne null', 'ab'],
    [`connectionId eq '${bob.id}'`, 'b'],
    [`connectionId in ('${bob.id}','${nobody.id}','other')`, 'bn'],
    ["userId in ('ann','bob')", 'ab'],
    ["'red' in groups", 'ab'],
    ["'red' in groups and 'blue' in groups", 'a'],
    ["'red' in groups and not ('blue' in groups)", 'b'],
    ["'it''s' in groups", 'b'],
    ["userId eq 'bob' or userId eq 'ann' and 'blue' in groups", 'ab'],
    ["(userId eq 'bob' or userId eq 'ann') and 'blue' in groups", 'a'],
    ['length(groups) gt 1', 'ab'],
    ['length(groups) le 1', 'n'],
    ['length(userId) eq 3', 'ab'],
    ["startswith(userId, 'a') or endswith(userId, 'b')", 'ab'],
    ["contains(userId, 'nn')", 'a'],
    ["indexof(userId, 'n') eq 1", 'a'],
    ["substring(userId, 1) eq 'nn'", 'a'],
    ["substring(userId, 0, 2) eq 'bo'", 'b'],
    ["toupper(userId) eq 'ANN'", 'a'],
    ["tolower('BOB') eq userId", 'b'],
    ["trim('  bob ') eq userId", 'b'],
    ["concat(userId, '!') eq 'ann!'", 'a'],
    ['true', 'abn'],
    ['false', ''],
    ['not (userId eq null)', 'ab'],
    ["userId ge 'b'", 'b'],
  ];
  for (const [filter] of filters) await hub.service.sendToAll(filter, { ...PLAIN, filter });
  const chosen = (name) => filters.filter(([, who]) => who.includes(name)).map(([filter]) => fromServer('text', filter));
  await hub.got(...Object.entries(clients).map(([name, client]) => [client, ...chosen(name)]));
});

test('filters narrow what a group and a user get, and go together with exclusion', async () => {
  const hub = stage.hub();
  const [one, two, three] = [
    await hub.client({ userId: 'ann', groups: ['g', 'h'] }),
    await hub.client({ userId: 'ann', groups: ['g'] }),
    await hub.client({ userId: 'bob', groups: ['g', 'h'] }),
  ];
  await hub.service.group('g').sendToAll('g and h', { ...PLAIN, filter: "'h' in groups" });
  await hub.service.sendToUser('ann', 'ann and h', { ...PLAIN, filter: "'h' in groups" });
  await hub.service.group('g').sendToAll('g and h but bob', { ...PLAIN, filter: "'h' in groups", excludedConnections: [three.id] });
  await hub.service.sendToAll('h but one', { ...PLAIN, filter: "'h' in groups", excludedConnections: [one.id] });
  await hub.got(
    [one, fromGroup('g', 'text', 'g and h'), fromServer('text', 'ann and h'), fromGroup('g', 'text', 'g and h but bob')],
    [two],
    [three, fromGroup('g', 'text', 'g and h'), fromServer('text', 'h but one')],
  );
});

test('a faulty filter is refused with what is wrong with it, and nobody gets anything', async () => {
  const hub = stage.hub();
  const client = await hub.client({ userId: 'ann', groups: ['g'] });
  const faulty = [
    'invalid filter',
    "userId eq 'ann",
    'userId',
    'null',
    "not userId eq 'ann'",
    'nosuch eq 1',
    "nosuch('a')",
    "startswith(userId)",
    '(true',
    'true)',
    "'a' in ('b',)",
    `${'('.repeat(4_000)}true`,
  ];
  for (const filter of faulty) {
    const calls = [
      () => hub.service.sendToAll('x', { filter }),
      () => hub.service.group('g').sendToAll('x', { filter }),
      () => hub.service.sendToUser('ann', 'x', { filter }),
    ];
    for (const call of calls) {
      await assert.rejects(call, ({ statusCode, response }) => {
        assert.equal(statusCode, 400, filter);
        assert.match(response.bodyAsText, /Invalid syntax for '.*'.*\(Parameter 'filter'\)/s);
        return true;
      });
    }
  }
  await assert.rejects(hub.service.sendToAll('x', { filter: 'null' }), ({ response }) => {
    const { message } = JSON.parse(response.bodyAsText);
    assert.equal(message, "Invalid syntax for 'null': Type 'null', expect 'bool'. (Parameter 'filter')");
    assert.equal(response.headers.get('x-ms-error-code'), 'Error.BadRequest');
    return true;
  });
  await hub.got([client]);
});

test('who is not there gets nothing, and that is no failure', async () => {
  const hub = stage.hub();
  const client = await hub.client({ userId: 'ann' });
  await hub.service.sendToUser('bob', 'x');
  await hub.service.sendToUser('Ann', 'x');
  await hub.service.sendToConnection('no-such-connection', 'x');
  await hub.service.sendToConnection(`${client.id}x`, 'x');
  await hub.service.group('empty').sendToAll('x');
  const other = stage.hub();
  await other.service.sendToConnection(client.id, 'by way of another hub');
  await hub.got([client]);
});

test('a lifetime may be given to messages', async () => {
  const hub = stage.hub();
  const client = await hub.client({ userId: 'ann', groups: ['g'] });
  for (const messageTtlSeconds of [0, 1, 300]) {
    const options = { ...PLAIN, messageTtlSeconds };
    const data = `${messageTtlSeconds}`;
    await hub.service.sendToAll(data, options);
    await hub.service.sendToUser('ann', data, options);
    await hub.service.sendToConnection(client.id, data, options);
    await hub.service.group('g').sendToAll(data, options);
    await hub.got([client, ...Array(3).fill(fromServer('text', data)), fromGroup('g', 'text', data)]);
  }
  for (const messageTtlSeconds of [-1, 301]) {
    const options = { ...PLAIN, messageTtlSeconds };
    for (const call of [
      () => hub.service.sendToAll('x', options),
      () => hub.service.sendToUser('ann', 'x', options),
      () => hub.service.sendToConnection(client.id, 'x', options),
      () => hub.service.group('g').sendToAll('x', options),
    ]) {
      await assert.rejects(call, { statusCode: 400 });
    }
  }
  await hub.got([client]);
});

test('messages as large as they may be arrive whole, larger ones are refused', async () => {
  const hub = stage.hub();
  const [simple, plain, reliable] = await receivers(hub);
  const largest = 'x'.repeat(MESSAGE_BYTES_MAX);
  const bytes = Buffer.alloc(MESSAGE_BYTES_MAX, 0xa5);
  await hub.service.sendToAll(largest, PLAIN);
  await hub.service.sendToAll(bytes);
  for (const message of [`${largest}x`, { a: largest }]) {
    await assert.rejects(
      hub.service.sendToAll(message, typeof message === 'string' ? PLAIN : undefined),
      ({ statusCode }) => statusCode === 413 || statusCode === 400,
    );
  }
  const expected = [fromServer('text', largest), fromServer('binary', bytes)];
  await hub.got([simple, text(largest), binary(bytes)], [plain, ...expected], [reliable, ...expected]);
});

test('messages that are sent one after another arrive in this order', async () => {
  const hub = stage.hub();
  const everybody = await receivers(hub);
  const numbers = Array.from({ length: 300 }, (_, at) => at);
  for (const number of numbers) {
    if (number % 3 === 0) await hub.service.sendToAll(number);
    else if (number % 3 === 1) await hub.service.sendToUser('ann', number);
    else await hub.service.group('g').sendToAll(number);
  }
  const raw = numbers.map((number) => text(`${number}`));
  const wrapped = numbers.map((number) => (number % 3 === 2 ? fromGroup('g', 'json', number) : fromServer('json', number)));
  await hub.got(...everybody.map((receiver, at) => [receiver, ...(at === 0 ? raw : wrapped)]));
  assert.deepEqual(everybody[1].sequenceIds, []);
  // The mark is the last one.
  assert.deepEqual(everybody[2].sequenceIds, Array.from({ length: 301 }, (_, at) => at + 1));
});
