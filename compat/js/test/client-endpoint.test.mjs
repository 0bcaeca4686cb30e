// How clients come in: every form of the URL, tokens, subprotocols, and what the upstream decides.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';

import { within } from '../lib/mailbox.mjs';
import { PRIMARY_KEY, SECONDARY_KEY } from '../lib/service.mjs';
import { Socket, bareHandshake, binary, refusal, text } from '../lib/socket.mjs';
import { Stage, token } from '../lib/stage.mjs';
import { headerText, letIn, textOfHeader } from '../lib/upstream.mjs';

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

const clients = () => `ws://${stage.service.address}/ws/client`;

test('a client may spell its URL in every documented form', async () => {
  const room = stage.room();
  const { hub } = room;
  for (const [rest, expected, query] of [
    [`/hubs/${hub}?user=u`, text, 'user=u'],
    [`/hubs/${hub}/?user=u`, text, 'user=u'],
    [`/hubs/${hub}/formats/text?user=u`, text, 'user=u'],
    [`/hubs/${hub}/formats/binary?user=u`, binary, 'user=u'],
    [`/hubs/${hub}/formats/text/?user=u`, text, 'user=u'],
    [`/hubs/${hub}/formats/binary/?user=u`, binary, 'user=u'],
    [`/hubs/${hub}?format=text&user=u`, text, 'format=text&user=u'],
    [`/hubs/${hub}?user=u&format=binary`, binary, 'user=u&format=binary'],
    [`/hubs/${hub}/?formats=binary&user=u`, binary, 'formats=binary&user=u'],
    [`?hub=${hub}&format=text&user=u`, text, `hub=${hub}&format=text&user=u`],
    [`?hub=${hub}&format=binary&user=u`, binary, `hub=${hub}&format=binary&user=u`],
    [`?hubs=${hub}&formats=binary&user=u`, binary, `hubs=${hub}&formats=binary&user=u`],
    [`/?hub=${hub}&user=u`, text, `hub=${hub}&user=u`],
    [`/hubs/${hub.toUpperCase()}/?user=u`, text, 'user=u'],
  ]) {
    const socket = await Socket.open(clients() + rest);
    const connect = await room.upstream.connects.next();
    assert.equal(connect.hub, hub);
    assert.equal(connect.headers['x-asrs-client-query'], query, rest);
    await room.library.sendToConnection(connect.connectionId, 'hi');
    assert.deepEqual(await socket.next(), expected('hi'), rest);
    await socket.close();
    await room.upstream.disconnects.next();
  }
});

test('a URL that names no hub, no format or no place is refused before any upstream hears of it', async () => {
  const room = stage.room();
  for (const [rest, status] of [
    ['', 400],
    ['?format=text', 400],
    ['/hubs/1st', 400],
    [`/hubs/${room.hub}/formats/xml`, 400],
    [`/hubs/${room.hub}?format=xml`, 400],
    ['/rooms/chat', 404],
    [`/hubs/${room.hub}/extra/segments/here`, 404],
  ]) {
    assert.equal((await refusal(clients() + rest)).status, status, rest);
  }
  assert.deepEqual(room.upstream.log, []);
});

test('the client URL of the old library works, without and with a user', async () => {
  const room = stage.room();
  const ann = await Socket.open(`${room.library.clientEndpoint()}?user=ann`);
  assert.equal((await room.upstream.connects.next()).userId, undefined);
  const bob = await Socket.open(room.library.clientEndpoint('bob', { role: 'guest' }));
  const connect = await room.upstream.connects.next();
  assert.equal(connect.userId, 'bob');
  assert.match(connect.claims, /(^|, )sub: bob($|, )/);
  assert.match(connect.claims, /(^|, )role: guest($|, )/);
  await room.library.sendToUser('ann', 'for ann');
  await room.library.sendToUser('bob', 'for bob');
  await room.got([ann, text('for ann')], [bob, text('for bob')]);
});

test('a token comes in the query or in a header, signed with either key, its audience with or without a slash', async () => {
  const room = stage.room();
  const path = `/ws/client/hubs/${room.hub}`;
  const { port } = new URL(stage.service.url);
  const bearer = (...arguments_) => ({ headers: { Authorization: `Bearer ${token(...arguments_)}` } });
  for (const [rest, options] of [
    [`/hubs/${room.hub}?access_token=${token(path, { sub: 'u' })}`],
    [`/hubs/${room.hub}/?access_token=${token(path, { sub: 'u' })}`],
    [`/hubs/${room.hub}?access_token=${token(`${path}/`, { sub: 'u' })}`],
    [`/hubs/${room.hub}?access_token=${token(path, { sub: 'u', key: SECONDARY_KEY })}`],
    [`/hubs/${room.hub}?access_token=${token(path, { sub: 'u', host: `localhost:${port}` })}`],
    [`/hubs/${room.hub}`, bearer(path, { sub: 'u' })],
    [`/hubs/${room.hub}/`, bearer(path, { sub: 'u', key: SECONDARY_KEY })],
  ]) {
    const socket = await Socket.open(clients() + rest, options);
    const connect = await room.upstream.connects.next();
    assert.equal(connect.userId, 'u');
    assert.ok(!(connect.headers['x-asrs-client-query'] ?? '').includes('access_token'), 'the upstream cannot act as the client');
    assert.equal(await room.library.userExists('u'), true);
    await socket.close();
    assert.equal((await room.upstream.disconnects.next()).userId, 'u');
  }
});

test('bad tokens are refused with 401, in the query and in the header, and no upstream hears of it', async () => {
  const room = stage.room();
  const path = `/ws/client/hubs/${room.hub}`;
  const good = token(path, { sub: 'u' });
  for (const [what, bad] of [
    ['no token', 'x'],
    ['three parts of nothing', 'a.b.c'],
    ['expired', token(path, { sub: 'u', expiresIn: '-1h' })],
    ['another key', token(path, { sub: 'u', key: PRIMARY_KEY.toLowerCase() })],
    ['another hub', token('/ws/client/hubs/other', { sub: 'u' })],
    ['the REST API', token(`/ws/api/v1/hubs/${room.hub}/`, { sub: 'u' })],
    ['another host', token(path, { sub: 'u', host: 'example.org' })],
    ['unsigned', token(path, { sub: 'u', algorithm: 'none', key: '' })],
    ['without its signature', good.slice(0, good.lastIndexOf('.') + 1)],
    ['HS512', token(path, { sub: 'u', algorithm: 'HS512' })],
  ]) {
    const query = await refusal(room.url(`?user=u&access_token=${bad}`));
    assert.equal(query.status, 401, `${what}, in the query`);
    assert.ok(bad.length < 10 || !query.body.includes(bad), 'a token is never repeated');
    const header = await refusal(room.url('?user=u'), { headers: { Authorization: `Bearer ${bad}` } });
    assert.equal(header.status, 401, `${what}, in the header`);
  }
  assert.equal((await refusal(room.url('?user=u&access_token='))).status, 401, 'an empty token');
  assert.deepEqual(room.upstream.log, []);
});

test('the upstream names the user, over the one of the token', async () => {
  const room = stage.room({
    connect: (_, response) => response.set('X-ASRS-User-Id', headerText('Zoë @ 日本')).sendStatus(204),
  });
  const socket = await Socket.open(room.library.clientEndpoint('of the token'));
  const connect = await room.upstream.connects.next();
  assert.equal(connect.userId, 'of the token');
  assert.equal(await room.library.userExists('of the token'), false);
  assert.equal(await room.library.userExists('Zoë @ 日本'), true);
  socket.send('who am I?');
  const message = await room.upstream.messages.next();
  assert.equal(textOfHeader(message.userId), 'Zoë @ 日本');
  await room.library.sendToUser('Zoë @ 日本', 'you are');
  assert.deepEqual(await socket.next(), text('you are'));
  await socket.close();
  assert.equal(textOfHeader((await room.upstream.disconnects.next()).userId), 'Zoë @ 日本');
});

test('without any user the handshake is refused with 401', async () => {
  const room = stage.room();
  assert.equal((await refusal(room.url())).status, 401);
  await room.upstream.connects.next();
  const withoutSub = token(`/ws/client/hubs/${room.hub}`, { role: 'guest' });
  assert.equal((await refusal(room.url(`?access_token=${withoutSub}`))).status, 401);
  assert.match((await room.upstream.connects.next()).claims, /role: guest/);
});

test('a refusal of the upstream is the answer to the client: status, content type and body', async () => {
  for (const [status, type, body] of [
    [400, 'text/plain; charset=utf-8', 'no room named'],
    [401, 'text/plain; charset=utf-8', 'who are you? ä'],
    [403, 'application/json; charset=utf-8', '{"error":"banned","until":null}'],
    [404, 'text/html; charset=utf-8', '<p>no such room</p>'],
    [409, 'text/plain; charset=utf-8', ''],
    [429, 'text/plain; charset=utf-8', 'slow down'],
  ]) {
    const room = stage.room({
      // A user does not help one who is refused.
      connect: (_, response) => response.set('X-ASRS-User-Id', 'ann').status(status).type(type).send(body),
    });
    const refused = await refusal(room.url('?user=ann'));
    assert.deepEqual([refused.status, refused.body], [status, body]);
    assert.equal(refused.headers['content-type'], type);
    assert.equal(refused.headers['x-asrs-user-id'], undefined, 'what is for the service stays with it');
    assert.equal(await room.library.userExists('ann'), false);
  }
});

test('an upstream that fails, or redirects, is a bad gateway', async () => {
  const elsewhere = stage.room();
  for (const fail of [
    (response) => response.status(500).send('a stack trace'),
    (response) => response.status(503).end(),
    (response) => response.redirect(307, `/${elsewhere.hub}/connections/connect`),
    (response) => response.set('X-ASRS-User-Id', 'a\tb').status(200).end(),
  ]) {
    const room = stage.room({ connect: (_, response) => fail(response) });
    const { status, body } = await refusal(room.url('?user=ann'));
    assert.equal(status, 502, `${fail}`);
    assert.ok(!body.includes('stack trace'), 'what broke inside is not told');
    assert.equal(room.upstream.log.length, 1, 'it was asked once');
    room.upstream.connections.clear();
  }
  assert.deepEqual(elsewhere.upstream.log, [], 'no redirect is followed');
});

test('an upstream that breaks off without an answer is asked again, and is a bad gateway when it keeps doing so', async () => {
  let asked = 0;
  const hesitant = stage.room({
    connect: (request, response, event) => {
      asked += 1;
      if (asked < 3) response.socket.destroy();
      else letIn(request, response, event);
    },
  });
  const ann = await Socket.open(hesitant.url('?user=ann'));
  assert.equal(asked, 3);
  await ann.close();
  await hesitant.upstream.disconnects.next();

  const broken = stage.room({ connect: (_, response) => response.socket.destroy() });
  assert.equal((await refusal(broken.url('?user=ann'))).status, 502);
});

test('the subprotocol is the one that the upstream chooses', async () => {
  const room = stage.room({
    connect: (request, response, event) => {
      response.set('Sec-WebSocket-Protocol', 'chat.v2');
      letIn(request, response, event);
    },
  });
  const ann = await room.join('ann', { protocols: ['chat.v1', 'chat.v2', 'chat.v3'] });
  assert.equal(ann.protocol, 'chat.v2');
  assert.equal(ann.handshakeHeaders['sec-websocket-protocol'], 'chat.v2');
});

test('every subprotocol that is offered reaches the upstream, in the order of the client', async () => {
  const room = stage.room();
  const { socket } = await bareHandshake(room.url('?user=ann'), { 'Sec-WebSocket-Protocol': ['a.1, b', 'c'] });
  const connect = await room.upstream.connects.next();
  assert.deepEqual(connect.headers['sec-websocket-protocol'].split(/\s*,\s*/), ['a.1', 'b', 'c']);
  socket.destroy();
  await room.upstream.disconnects.next();
});

test('without a choice, or with one that cannot be, the handshake names no subprotocol at all', async () => {
  for (const [offered, chosen] of [
    ['a, b', undefined],
    ['a, b', ''],
    ['a, b', 'c'],
    ['a, b', 'A'],
    ['a, b', 'a, b'],
    ['a, b', ['a', 'b']],
    [undefined, 'a'],
    [undefined, undefined],
  ]) {
    const room = stage.room({
      connect: (request, response, event) => {
        if (chosen !== undefined) response.set('Sec-WebSocket-Protocol', chosen);
        letIn(request, response, event);
      },
    });
    const handshake = await bareHandshake(room.url('?user=ann'), offered && { 'Sec-WebSocket-Protocol': offered });
    assert.equal(handshake.status, 101);
    assert.ok(!('sec-websocket-protocol' in handshake.headers), `${offered} answered with ${JSON.stringify(chosen)}`);
    const closed = once(handshake.socket, 'close');
    handshake.socket.destroy();
    await within(closed, 'the socket');
    await room.upstream.disconnects.next();
  }
});

test('a client that gets none of its subprotocols gives up, and the upstream hears of both', async () => {
  const room = stage.room();
  await assert.rejects(Socket.open(room.url('?user=ann'), { protocols: ['a'] }), /no subprotocol/);
  const { connectionId } = await room.upstream.connects.next();
  assert.equal((await room.upstream.disconnects.next()).connectionId, connectionId);
  assert.equal(await room.library.userExists('ann'), false);
});

test('what the upstream says at connect is the first message', async () => {
  for (const [type, body, format, expected] of [
    ['text/plain', 'welcome', undefined, text('welcome')],
    ['application/json', '{"welcome": true}', undefined, text('{"welcome": true}')],
    ['application/octet-stream', Buffer.from([1, 2]), undefined, binary([1, 2])],
    ['application/octet-stream', Buffer.from('ok'), 'text', text('ok')],
    ['text/plain', 'welcome', 'binary', binary('welcome')],
  ]) {
    const room = stage.room({
      connect: (_, response, event) => {
        response.set({ 'X-ASRS-User-Id': event.query.user, 'Content-Type': type });
        response.status(200).end(body);
      },
    });
    const ann = await room.join('ann', { format });
    await room.got([ann, expected]);
  }
});

test('a plain GET of the client URL is no handshake', async () => {
  const room = stage.room();
  const answer = await fetch(room.url('?user=ann').replace('ws:', 'http:'));
  assert.equal(answer.status, 400);
  await answer.text();
  assert.equal((await bareHandshake(room.url('?user=ann'), { 'Sec-WebSocket-Version': '8' })).status, 426);
  assert.equal((await bareHandshake(room.url('?user=ann'), { 'Sec-WebSocket-Key': 'short' })).status, 400);
  assert.deepEqual(room.upstream.log, []);
});

test('connection ids are unique, at most 64 characters, and safe in a URL', async () => {
  const room = stage.room();
  const ids = new Set();
  for (let at = 0; at < 20; at += 1) ids.add((await room.join('ann')).id);
  assert.equal(ids.size, 20);
  for (const id of ids) assert.match(id, /^[\w-]{1,64}$/);
});
