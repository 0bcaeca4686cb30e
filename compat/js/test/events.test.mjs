// What an upstream is told, what its answers do, and that it hears of every end exactly once.
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import net from 'node:net';
import { after, test } from 'node:test';

import { deferred, within } from '../lib/mailbox.mjs';
import { PRIMARY_KEY, SECONDARY_KEY } from '../lib/service.mjs';
import { Socket, binary, refusal, text } from '../lib/socket.mjs';
import { Stage, token } from '../lib/stage.mjs';
import { letIn } from '../lib/upstream.mjs';

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

const SPELLING = [
  'X-ASRS-Connection-Id',
  'X-ASRS-Hub',
  'X-ASRS-Category',
  'X-ASRS-Event',
  'X-ASRS-User-Claims',
  'X-ASRS-Signature',
  'X-ASRS-Client-Query',
  'X-Forwarded-For',
  'Date',
];

/** Returns the header names just as they came. */
const names = ({ rawHeaders }) => rawHeaders.filter((_, at) => at % 2 === 0);

/** Returns the value of the header in exactly this spelling. */
const exactly = ({ rawHeaders }, name) => rawHeaders[rawHeaders.indexOf(name) + 1];

test('every event carries its headers in the documented spelling, each once', async () => {
  const room = stage.room();
  const query = 'user=ann&a=%C3%A4%20b&x=1&x=2&empty=&flag';
  const socket = await Socket.open(room.url(`/?${query}`), {
    protocols: [],
    headers: { 'X-Forwarded-For': '203.0.113.7, 198.51.100.2' },
  });
  const connect = await room.upstream.connects.next();
  socket.send('text ä');
  const message = await room.upstream.messages.next();
  await socket.close();
  const disconnect = await room.upstream.disconnects.next();

  for (const [event, category, name] of [
    [connect, 'connections', 'connect'],
    [message, 'messages', 'message'],
    [disconnect, 'connections', 'disconnect'],
  ]) {
    assert.equal(event.method, 'POST');
    assert.equal(event.httpVersion, '1.1');
    assert.equal(event.url, `/${room.hub}/${category}/${name}`);
    const expected = [...SPELLING];
    if (name !== 'connect') expected.push('X-ASRS-User-Id');
    if (name === 'message') expected.push('Content-Type');
    for (const header of expected) {
      assert.equal(names(event).filter((one) => one.toLowerCase() === header.toLowerCase()).length, 1, `${name}: ${header}`);
      assert.ok(names(event).includes(header), `${name}: ${header} among ${names(event)}`);
    }
    assert.equal(exactly(event, 'X-ASRS-Connection-Id'), connect.connectionId);
    assert.equal(exactly(event, 'X-ASRS-Hub'), room.hub);
    assert.equal(exactly(event, 'X-ASRS-Category'), category);
    assert.equal(exactly(event, 'X-ASRS-Event'), name);
    assert.equal(exactly(event, 'X-ASRS-Client-Query'), query, 'as the client wrote it');
    assert.equal(exactly(event, 'X-Forwarded-For'), '203.0.113.7, 198.51.100.2, 127.0.0.1');
    assert.ok(!Number.isNaN(Date.parse(exactly(event, 'Date'))));
    assert.match(exactly(event, 'Date'), / GMT$/);
    if (name !== 'connect') assert.equal(exactly(event, 'X-ASRS-User-Id'), 'ann');
    if (name !== 'message') assert.deepEqual([event.text, event.headers['content-type']], ['', undefined]);
    assert.deepEqual(
      names(event).filter((one) => /^(accept-encoding|cookie|authorization)$/i.test(one)),
      [],
      'nothing that was not asked for',
    );
  }
  assert.ok(!names(connect).some((one) => one.toLowerCase() === 'x-asrs-user-id'), 'nobody knows the user yet');
  assert.ok(!names(connect).some((one) => one.toLowerCase() === 'sec-websocket-protocol'), 'none was offered');
  assert.equal(message.text, 'text ä');
  assert.equal(exactly(message, 'Content-Type'), 'text/plain');
});

test('subprotocols are named at connect alone, in the documented spelling', async () => {
  const room = stage.room({
    connect: (request, response, event) => {
      response.set('Sec-WebSocket-Protocol', 'b');
      letIn(request, response, event);
    },
  });
  const socket = await Socket.open(room.url('?user=ann'), { protocols: ['a', 'b'] });
  const connect = await room.upstream.connects.next();
  assert.match(exactly(connect, 'Sec-WebSocket-Protocol'), /^a, ?b$/);
  socket.send('x');
  assert.equal((await room.upstream.messages.next()).headers['sec-websocket-protocol'], undefined);
});

test('the signature is made of the connection id with both keys', async () => {
  const room = stage.room();
  const { id } = await room.join('ann');
  const socket = await room.join('bob');
  socket.send('x');
  const message = await room.upstream.messages.next();
  const sign = (key, value) => `sha256=${createHmac('sha256', key).update(value).digest('hex')}`;
  assert.equal(message.signature, [PRIMARY_KEY, SECONDARY_KEY].map((key) => sign(key, socket.id)).join(','));
  assert.notEqual(message.signature, [PRIMARY_KEY, SECONDARY_KEY].map((key) => sign(key, id)).join(','));
});

test('the claims of a token come with every event, text that could end the header made harmless', async () => {
  const room = stage.room();
  const claims = { sub: 'ann', role: ['admin', 'guest'], 'http://schemas.example/name': 'A. Nn', nasty: 'x\r\nX-ASRS-User-Id: eve' };
  const access = token(`/ws/client/hubs/${room.hub}`, claims);
  const socket = await Socket.open(room.url(`?access_token=${access}`));
  const connect = await room.upstream.connects.next();
  socket.send('x');
  const message = await room.upstream.messages.next();
  assert.equal(connect.userId, 'ann');
  assert.equal(message.claims, connect.claims);
  for (const pair of ['sub: ann', 'role: admin', 'role: guest', 'http://schemas.example/name: A. Nn']) {
    assert.ok(connect.claims.split(', ').includes(pair), `${pair} in ${connect.claims}`);
  }
});

test('messages keep their bytes and their kind', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const json = '{"group": "g",  "n": [1, 2]}';
  for (const [data, options, type] of [
    ['', {}, 'text/plain'],
    ['plain, ünïcode 🎉', {}, 'text/plain'],
    [json, {}, 'text/plain'],
    [Buffer.alloc(0), {}, 'application/octet-stream'],
    [Buffer.from([0, 255, 128, 10, 13]), {}, 'application/octet-stream'],
    [Buffer.from('words in a binary frame'), {}, 'application/octet-stream'],
    [Buffer.from('words in a text frame'), { binary: false }, 'text/plain'],
  ]) {
    ann.send(data, options);
    const message = await room.upstream.messages.next();
    assert.deepEqual(message.body, Buffer.from(data));
    assert.equal(message.headers['content-type'], type);
    assert.equal(message.headers['content-length'], `${Buffer.byteLength(data)}`);
  }
});

test('a fragmented message is one event, and 1 MiB fits while one byte more ends the connection', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  ann.send('a ', { fin: false });
  ann.send('message ', { fin: false });
  ann.send('in parts', { fin: true });
  assert.equal((await room.upstream.messages.next()).text, 'a message in parts');
  ann.send(Buffer.alloc(1024 * 1024, 7));
  assert.equal((await room.upstream.messages.next()).body.length, 1024 * 1024);
  ann.send(Buffer.alloc(1024 * 1024 + 1, 7));
  assert.equal((await ann.end()).code, 1009);
  await room.upstream.disconnects.next();
  assert.deepEqual(room.upstream.messages.untaken, []);
});

test('an answer to a message comes back as a message to the one who sent it', async () => {
  const answers = {
    text: ['text/plain', 'an answer'],
    json: ['application/json; charset=utf-8', '{"a": [1,  2]}'],
    html: ['text/html', '<b>bold</b>'],
    bytes: ['application/octet-stream', Buffer.from('bytes')],
    raw: ['application/octet-stream', Buffer.from([0xff, 0])],
    nothing: ['text/plain', ''],
    created: ['text/plain', 'made', 201],
    bad: ['text/plain', 'bad request', 400],
    broken: ['text/plain', 'internal error', 500],
  };
  const room = stage.room({
    message: (_, response, event) => {
      const [type, body, status = 200] = answers[event.text];
      response.status(status).set('Content-Type', type).end(body);
    },
  });
  const [asSent, textual, bytewise] = [
    await room.join('ann'),
    await room.join('ann', { format: 'text' }),
    await room.join('ann', { format: 'binary' }),
  ];
  for (const socket of [asSent, textual, bytewise]) {
    for (const question of Object.keys(answers)) {
      socket.send(question);
      await room.upstream.messages.next();
    }
    socket.send('text');
  }
  const expected = (...messages) => [...messages, messages[0]];
  for (const [socket, messages] of [
    [asSent, expected(text('an answer'), text('{"a": [1,  2]}'), text('<b>bold</b>'), binary('bytes'), binary([0xff, 0]), text('made'))],
    [textual, expected(text('an answer'), text('{"a": [1,  2]}'), text('<b>bold</b>'), text('bytes'), binary([0xff, 0]), text('made'))],
    [bytewise, expected(binary('an answer'), binary('{"a": [1,  2]}'), binary('<b>bold</b>'), binary('bytes'), binary([0xff, 0]), binary('made'))],
  ]) {
    for (const message of messages) assert.deepEqual(await socket.next(), message);
  }
  // Errors, empty answers and answers to others were no messages, and nobody was thrown out.
  await room.got([asSent], [textual], [bytewise]);
});

test('events of one connection come one after another while the upstream answers', async () => {
  let inside = 0;
  const overlaps = [];
  const room = stage.room({
    message: (_, response, event) => {
      inside += 1;
      if (1 < inside) overlaps.push(event.text);
      setImmediate(() => {
        inside -= 1;
        response.status(200).end();
      });
    },
  });
  const ann = await room.join('ann');
  for (let at = 0; at < 50; at += 1) ann.send(`${at}`);
  for (let at = 0; at < 50; at += 1) assert.equal((await room.upstream.messages.next()).text, `${at}`);
  assert.deepEqual(overlaps, []);
});

test('an upstream that never answers messages or disconnects still gets all of them, in order', async () => {
  const unanswered = [];
  const never = (_, response) => unanswered.push(response);
  const room = stage.room({ message: never, disconnect: never });
  const ann = await room.join('ann');
  const bob = await room.join('bob');
  for (let at = 0; at < 4; at += 1) ann.send(`${at}`);
  // Somebody else, and what is sent to the silent one, does not wait.
  bob.send('from bob');
  await room.library.sendToUser('ann', 'meanwhile');
  assert.deepEqual(await ann.next(), text('meanwhile'));
  await ann.close();
  const byAnn = [];
  while (byAnn.length < 4) {
    const message = await room.upstream.messages.next();
    if (message.connectionId === ann.id) byAnn.push(message.text);
  }
  assert.deepEqual(byAnn, ['0', '1', '2', '3']);
  assert.equal((await room.upstream.disconnects.next()).connectionId, ann.id);
  const ofAnn = room.upstream.log.filter(([, id]) => id === ann.id).map(([event]) => event);
  assert.deepEqual(ofAnn, ['connect', 'message', 'message', 'message', 'message', 'disconnect']);
  await bob.close();
  await room.upstream.disconnects.next();
  assert.equal(unanswered.length, 7);
  // Lets the service go when all tests are over.
  for (const response of unanswered) response.destroy();
});

test('a late answer is delivered when it comes', async () => {
  const late = [];
  const room = stage.room({
    message: (_, response, event) => {
      if (event.text === 'late') late.push(response);
      else response.status(200).end(`answer to ${event.text}`);
    },
  });
  const ann = await room.join('ann');
  ann.send('late');
  ann.send('next');
  assert.deepEqual(await ann.next(), text('answer to next'));
  late[0].status(200).end('here I am');
  assert.deepEqual(await ann.next(), text('here I am'));
});

test('an upstream that closes its connections after each answer, without saying so, misses nothing', async () => {
  const cutting = (answer) => (request, response, event) => {
    response.once('finish', () => request.socket.destroySoon());
    answer(request, response, event);
  };
  const empty = (_, response) => response.status(200).end();
  const room = stage.room({ connect: cutting(letIn), message: cutting(empty), disconnect: cutting(empty) });
  const sent = [];
  for (let at = 0; at < 50; at += 1) {
    const ann = await room.join('ann');
    ann.send(`${at}, one`);
    ann.send(`${at}, two`);
    sent.push(`${at}, one`, `${at}, two`);
    await ann.close();
    await room.upstream.disconnects.next();
  }
  assert.deepEqual(room.upstream.messages.untaken.map((message) => message.text), sent);
});

test('a connect handler may use the REST API before the client is in', async () => {
  let room;
  const outcomes = [];
  const handlers = {
    connect: async (request, response, event) => {
      const { user } = event.query;
      // What the chat sample does: tell the others, before this one is there.
      await room.library.broadcast(`${user} joins`);
      await room.library.addToGroup('everybody', user);
      outcomes.push(await room.library.connectionExists(event.connectionId), await room.library.userExists(user));
      letIn(request, response, event);
    },
  };
  room = stage.room(handlers);
  const ann = await room.join('ann');
  const bob = await room.join('bob');
  assert.deepEqual(outcomes, [false, false, false, false], 'nobody is there before the upgrade');
  await room.library.sendToGroup('everybody', 'welcome');
  await room.got([ann, text('bob joins'), text('welcome')], [bob, text('welcome')]);
});

test('a message handler may do all that the old samples do', async () => {
  let room;
  const actions = {
    join: ({ connectionId, group }) => room.library.addConnectionToGroup(group, connectionId),
    leave: ({ connectionId, group }) => room.library.removeConnectionFromGroup(group, connectionId),
    say: ({ userId, group, words }) => room.library.sendToGroup(group, `${userId}: ${words}`),
    whisper: ({ userId, to, words }) => room.library.sendToUser(to, `${userId} whispers: ${words}`),
    quit: ({ connectionId }) => room.library.closeConnection(connectionId, 'as you wish'),
  };
  room = stage.room({
    message: async (_, response, event) => {
      const command = JSON.parse(event.text);
      await actions[command.action]({ ...event, ...command });
      response.status(200).end();
    },
  });
  const [ann, bob] = [await room.join('ann'), await room.join('bob')];
  const order = (socket, command) => {
    socket.send(JSON.stringify(command));
    return room.upstream.messages.next();
  };
  await order(ann, { action: 'join', group: 'g' });
  await order(bob, { action: 'join', group: 'g' });
  await order(ann, { action: 'say', group: 'g', words: 'hello' });
  assert.deepEqual(await bob.next(), text('ann: hello'));
  assert.deepEqual(await ann.next(), text('ann: hello'));
  await order(bob, { action: 'whisper', to: 'ann', words: 'psst' });
  assert.deepEqual(await ann.next(), text('bob whispers: psst'));
  await order(bob, { action: 'leave', group: 'g' });
  await order(bob, { action: 'quit' });
  assert.deepEqual(await bob.end(), { code: 1000, reason: 'as you wish' });
  assert.equal((await room.upstream.disconnects.next()).userId, 'bob');
  await room.got([ann]);
});

test('every end is told once: by the client, by a cut, by REST, by a broken frame', async () => {
  const room = stage.room();
  const witness = await room.join('witness');
  const ends = {
    'the client closes': (socket) => socket.close(4001, 'bye'),
    'the client closes without a code': (socket) => socket.close(),
    'TCP is cut': (socket) => socket.terminate(),
    'REST closes': (socket) => room.library.closeConnection(socket.id, 'enough'),
    'REST closes twice, and the client as well': (socket) =>
      Promise.all([room.library.closeConnection(socket.id), room.library.closeConnection(socket.id), socket.close()]),
    'bytes that are no text': (socket) => socket.send(Buffer.from([0xff]), { binary: false }),
  };
  for (const [how, end] of Object.entries(ends)) {
    const socket = await room.join('ann');
    await end(socket);
    const disconnect = await room.upstream.disconnects.next();
    assert.equal(disconnect.connectionId, socket.id, how);
    assert.deepEqual([disconnect.userId, disconnect.text], ['ann', ''], how);
    await socket.end();
    assert.equal(await room.library.connectionExists(socket.id), false, how);
    // Nothing more comes of it: what happens later comes after it, and the count is looked at again when all is over.
    witness.send('still here');
    await room.upstream.messages.next();
    const ofIt = room.upstream.log.filter(([, id]) => id === socket.id).map(([event]) => event);
    assert.deepEqual(ofIt, ['connect', 'disconnect'], how);
  }
});

test('who is refused has no disconnect event', async () => {
  const room = stage.room({ connect: (_, response) => response.status(403).end() });
  assert.equal((await refusal(room.url('?user=ann'))).status, 403);
  assert.deepEqual(room.upstream.log.map(([event]) => event), ['connect']);
});

test('a message sent before a close comes before the disconnect, however fast', async () => {
  const room = stage.room();
  for (let at = 0; at < 20; at += 1) {
    const ann = await room.join('ann');
    ann.send('last words');
    if (at % 2 === 0) await ann.close();
    else ann.send('really the last');
    if (at % 2 === 1) await ann.close();
    await room.upstream.disconnects.next();
    const events = room.upstream.log.filter(([, id]) => id === ann.id).map(([event]) => event);
    assert.deepEqual(events, at % 2 === 0 ? ['connect', 'message', 'disconnect'] : ['connect', 'message', 'message', 'disconnect']);
  }
});

test('a client that leaves while the upstream thinks about it is told as gone', async () => {
  const [asked, left] = [deferred(), deferred()];
  const room = stage.room({
    connect: async (request, response, event) => {
      asked.resolve();
      await left.promise;
      letIn(request, response, event);
    },
  });
  const socket = net.connect(Number(new URL(stage.service.url).port), '127.0.0.1');
  socket.write(
    `GET /ws/client/hubs/${room.hub}?user=ann HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n',
  );
  await within(asked.promise, 'a connect event');
  socket.once('close', left.resolve);
  socket.destroy();
  const { connectionId } = await room.upstream.connects.next();
  assert.equal((await room.upstream.disconnects.next()).connectionId, connectionId);
  assert.equal(await room.library.userExists('ann'), false);
});
