// Every call of the REST API, by the old library and by hand.
import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { after, test } from 'node:test';

import { eventually } from '../lib/mailbox.mjs';
import { client } from '../lib/old-library.mjs';
import { PRIMARY_KEY, SECONDARY_KEY } from '../lib/service.mjs';
import { Socket, binary, text } from '../lib/socket.mjs';
import { Stage, request, token } from '../lib/stage.mjs';

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

/** An id of the right shape that no connection has. */
async function absentConnection(room) {
  const gone = await room.join('gone');
  await gone.close();
  await room.upstream.disconnects.next();
  return gone.id;
}

test('a broadcast reaches every connection of the hub, over all shards, and of no other hub', async () => {
  const [room, other] = [stage.room(), stage.room()];
  const sockets = [];
  for (let at = 0; at < 8; at += 1) sockets.push(await room.join(`user ${at % 3}`));
  const stranger = await other.join('user 0');
  await room.library.broadcast('one');
  await room.library.broadcast('zwei, ünïcode 🎉');
  await room.got(...sockets.map((socket) => [socket, text('one'), text('zwei, ünïcode 🎉')]));
  await other.got([stranger]);
});

test('a message to a user reaches all connections of that user', async () => {
  const room = stage.room();
  const name = 'Änn/é +&?#%41';
  const [laptop, phone, bob] = [await room.join(name), await room.join(name), await room.join('bob')];
  await room.library.sendToUser(name, 'for ann');
  await room.library.sendToUser(name.toLowerCase(), 'for somebody whose name differs in case');
  await room.library.sendToUser('nobody', 'for nobody');
  await room.got([laptop, text('for ann')], [phone, text('for ann')], [bob]);
});

test('a message to a connection reaches that one alone', async () => {
  const [room, other] = [stage.room(), stage.room()];
  const [one, two] = [await room.join('ann'), await room.join('ann')];
  await room.library.sendToConnection(one.id, 'for one');
  await other.library.sendToConnection(two.id, 'by way of a hub that it is not in');
  await room.library.sendToConnection('no-such-id', 'for none');
  await room.got([one, text('for one')], [two]);
});

test('connections join and leave groups by both spellings of the path', async () => {
  const room = stage.room();
  const group = 'Räume / 1?&';
  const [one, two] = [await room.join('ann'), await room.join('ann')];
  await room.library.sendToGroup(group, 'too early');
  await room.library.addConnectionToGroup(group, one.id);
  await room.library.addConnectionToGroup(group, one.id);
  await room.library.sendToGroup(group, 'for one');
  const encoded = encodeURIComponent(group);
  assert.equal((await room.call('PUT', `/connections/${two.id}/groups/${encoded}`)).status, 200);
  await room.library.sendToGroup(group, 'for both');
  await room.library.removeConnectionFromGroup(group, one.id);
  await room.library.sendToGroup(group, 'for two');
  assert.equal((await room.call('DELETE', `/connections/${two.id}/groups/${encoded}`)).status, 200);
  await room.library.sendToGroup(group, 'too late');
  await room.library.sendToGroup(group.toLowerCase(), 'group names heed their case');
  await room.got([one, text('for one'), text('for both')], [two, text('for both'), text('for two')]);
});

test('a connection in several groups stays in the others, and groups are of one hub', async () => {
  const [room, other] = [stage.room(), stage.room()];
  const [ann, eve] = [await room.join('ann'), await other.join('eve')];
  for (const group of ['a', 'b', 'c']) await room.library.addConnectionToGroup(group, ann.id);
  await other.library.addConnectionToGroup('b', eve.id);
  await room.library.removeConnectionFromGroup('a', ann.id);
  for (const group of ['a', 'b', 'c']) await room.library.sendToGroup(group, `to ${group}`);
  await room.got([ann, text('to b'), text('to c')]);
  await other.got([eve]);
});

test('what was sent before a leave arrives, what is sent after it does not, however fast they follow', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const expected = [];
  for (let at = 0; at < 20; at += 1) {
    await room.library.addConnectionToGroup('g', ann.id);
    await room.library.sendToGroup('g', `in ${at}`);
    await room.library.removeConnectionFromGroup('g', ann.id);
    await room.library.sendToGroup('g', `out ${at}`);
    expected.push(text(`in ${at}`));
  }
  await room.got([ann, ...expected]);
});

test('the body keeps its bytes, and its content type decides between text and binary', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const json = '[ {"a": 1},  "ä" ]';
  for (const [type, data] of [
    ['application/json', json],
    ['application/json; charset=utf-8', '{"b":null}'],
    ['text/plain', 'plain'],
    ['application/octet-stream', 'bytes'],
    ['text/plain', Buffer.from([0xff, 0x00, 0xfe])],
    ['application/octet-stream', Buffer.from([0, 1, 2, 255])],
    ['text/plain', ''],
  ]) {
    assert.equal((await room.call('POST', '/', { type, data })).status, 200);
  }
  await room.got([
    ann,
    text(json),
    text('{"b":null}'),
    text('plain'),
    binary('bytes'),
    binary([0xff, 0x00, 0xfe]),
    binary([0, 1, 2, 255]),
    text(''),
  ]);
});

test('the format of the endpoint decides the kind of frame for every target', async () => {
  const room = stage.room();
  const sockets = [await room.join('ann'), await room.join('ann', { format: 'text' }), await room.join('ann', { format: 'binary' })];
  const [asSent, textual, bytewise] = sockets;
  for (const { id } of sockets) await room.library.addConnectionToGroup('g', id);
  const targets = ['/', '/users/ann', '/groups/g'];
  for (const target of targets) {
    await room.call('POST', target, { type: 'text/plain', data: 'words' });
    await room.call('POST', target, { type: 'application/octet-stream', data: 'octets' });
    await room.call('POST', target, { type: 'application/octet-stream', data: Buffer.from([0xc0]) });
  }
  for (const { id } of sockets) await room.call('POST', `/connections/${id}`, { type: 'application/octet-stream', data: 'own' });
  const times = (...messages) => targets.flatMap(() => messages);
  await room.got(
    [asSent, ...times(text('words'), binary('octets'), binary([0xc0])), binary('own')],
    // Bytes that are no text cannot be sent as text.
    [textual, ...times(text('words'), text('octets'), binary([0xc0])), text('own')],
    [bytewise, ...times(binary('words'), binary('octets'), binary([0xc0])), binary('own')],
  );
});

test('what exists is told by HEAD, from connect to close', async () => {
  const [room, other] = [stage.room(), stage.room()];
  assert.equal(await room.library.userExists('ann'), false);
  const ann = await room.join('ann');
  await room.library.addConnectionToGroup('g 1', ann.id);
  const exists = async ({ library }) => [
    await library.userExists('ann'),
    await library.groupExists('g 1'),
    await library.connectionExists(ann.id),
  ];
  assert.deepEqual(await exists(room), [true, true, true]);
  assert.deepEqual(await exists(other), [false, false, false], 'another hub knows nothing of it');
  assert.equal(await room.library.userExists('bob'), false);
  assert.equal(await room.library.groupExists('g 2'), false);
  await room.library.removeConnectionFromGroup('g 1', ann.id);
  assert.deepEqual(await exists(room), [true, false, true]);
  await ann.close();
  await room.upstream.disconnects.next();
  assert.deepEqual(await exists(room), [false, false, false]);
  const head = await room.call('HEAD', '/users/ann');
  assert.deepEqual([head.status, head.body], [404, '']);
});

test('a user lives in a group: with all its connections, those to come too, until it is removed', async () => {
  const room = stage.room();
  const first = await room.join('ann');
  const stranger = await room.join('bob');
  assert.equal((await room.call('GET', '/groups/g/users/ann')).status, 404);
  await room.library.addToGroup('g', 'ann');
  const second = await room.join('ann');
  await room.library.sendToGroup('g', 'for the user');
  await room.got([first, text('for the user')], [second, text('for the user')], [stranger]);
  for (const path of ['/groups/g/users/ann', '/users/ann/groups/g']) assert.equal((await room.call('GET', path)).status, 200);
  assert.equal((await room.call('GET', '/users/bob/groups/g')).status, 404);

  // Nobody of the group is connected, and still the user lives in it.
  await first.close();
  await second.close();
  await room.upstream.disconnects.next();
  await room.upstream.disconnects.next();
  assert.equal(await room.library.groupExists('g'), false);
  assert.equal((await room.call('GET', '/groups/g/users/ann')).status, 200);
  const third = await room.join('ann');
  await room.library.sendToGroup('g', 'for one who came back');
  await room.library.removeFromGroup('g', 'ann');
  await room.library.sendToGroup('g', 'too late');
  assert.equal((await room.call('GET', '/groups/g/users/ann')).status, 404);
  await room.got([third, text('for one who came back')]);
});

test('a user can be put into a group before it ever connects, by both spellings', async () => {
  const room = stage.room();
  assert.equal((await room.call('PUT', '/users/new%2Fcomer/groups/a%20b')).status, 200);
  assert.equal((await room.call('PUT', '/groups/c/users/new%2Fcomer/')).status, 200);
  const comer = await room.join('new/comer');
  await room.library.sendToGroup('a b', 'welcome');
  await room.library.sendToGroup('c', 'to both');
  assert.equal((await room.call('DELETE', '/users/new%2Fcomer/groups/a%20b/')).status, 200);
  await room.library.sendToGroup('a b', 'gone');
  await room.got([comer, text('welcome'), text('to both')]);
});

test('removing a user from all groups leaves what its connections joined by themselves', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  for (const group of ['a', 'b']) await room.library.addToGroup(group, 'ann');
  await room.library.addToGroup('a', 'bob');
  await room.library.addConnectionToGroup('b', ann.id);
  await room.library.addConnectionToGroup('c', ann.id);
  await room.library.removeFromAllGroups('ann');
  for (const group of ['a', 'b', 'c']) await room.library.sendToGroup(group, `to ${group}`);
  await room.got([ann, text('to b'), text('to c')]);
  assert.equal((await room.call('GET', '/groups/a/users/ann')).status, 404);
  assert.equal((await room.call('GET', '/groups/a/users/bob')).status, 200, 'other users stay');
});

test('a membership with a ttl ends by itself, for the connections it brought in too', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  assert.equal((await room.call('PUT', '/groups/brief/users/ann?ttl=1')).status, 200);
  assert.equal((await room.call('PUT', '/users/ann/groups/long?ttl=3600')).status, 200);
  await room.library.sendToGroup('brief', 'still in');
  await eventually(async () => (await room.call('GET', '/groups/brief/users/ann')).status === 404, 'the membership ends');
  await eventually(async () => !(await room.library.groupExists('brief')), 'the connection leaves');
  const later = await room.join('ann');
  await room.library.sendToGroup('brief', 'gone');
  await room.library.sendToGroup('long', 'here');
  await room.got([ann, text('still in'), text('here')], [later, text('here')]);
  assert.equal((await room.call('GET', '/groups/long/users/ann')).status, 200);
});

test('a later PUT replaces the ttl: without one the user stays for ever', async () => {
  const room = stage.room();
  // Two users with the same expiry: when it has taken the one, it would have taken the other.
  for (const user of ['kept', 'taken']) assert.equal((await room.call('PUT', `/groups/g/users/${user}?ttl=1`)).status, 200);
  assert.equal((await room.call('PUT', '/groups/g/users/kept')).status, 200);
  await eventually(async () => (await room.call('GET', '/groups/g/users/taken')).status === 404, 'the membership ends');
  assert.equal((await room.call('GET', '/groups/g/users/kept')).status, 200);
  for (const ttl of ['-1', 'soon', '1.5', '']) {
    assert.equal((await room.call('PUT', `/groups/g/users/kept?ttl=${ttl}`)).status, 400, `ttl=${ttl}`);
  }
});

test('closing a connection tells its client 1000 and the reason', async () => {
  const room = stage.room();
  const sockets = {};
  for (const user of ['ann', 'bob', 'cy', 'witness']) sockets[user] = await room.join(user);
  await room.library.closeConnection(sockets.ann.id, 'time is up, größer & mehr=1');
  // An ampersand ends the parameter, for the library does not encode it.
  assert.deepEqual(await sockets.ann.end(), { code: 1000, reason: 'time is up, größer ' });
  await room.library.closeConnection(sockets.bob.id);
  const { code } = await sockets.bob.end();
  assert.equal(code, 1000);
  const encoded = `/connections/${sockets.cy.id}?reason=${encodeURIComponent('50% off & more?')}`;
  assert.equal((await room.call('DELETE', encoded)).status, 200);
  assert.deepEqual(await sockets.cy.end(), { code: 1000, reason: '50% off & more?' });
  assert.equal(await room.library.connectionExists(sockets.ann.id), false);
  await room.got([sockets.witness]);
  for (let at = 0; at < 3; at += 1) await room.upstream.disconnects.next();
});

test('a connection cannot be closed by way of another hub', async () => {
  const [room, other] = [stage.room(), stage.room()];
  const ann = await room.join('ann');
  await other.library.closeConnection(ann.id, 'not yours');
  await other.library.addConnectionToGroup('g', ann.id).then(
    () => assert.fail('it is not in this hub'),
    ({ status }) => assert.equal(status, 404),
  );
  await room.got([ann]);
});

test('every route answers with its exact status, with a trailing slash too, for what is there', async () => {
  const room = stage.room();
  for (const slash of ['', '/']) {
    const ann = await room.join('ann');
    for (const [method, path] of [
      ['POST', ''],
      ['POST', '/users/ann'],
      ['POST', `/connections/${ann.id}`],
      ['PUT', `/groups/g/connections/${ann.id}`],
      ['PUT', `/connections/${ann.id}/groups/h`],
      ['POST', '/groups/g'],
      ['HEAD', '/groups/g'],
      ['HEAD', '/users/ann'],
      ['HEAD', `/connections/${ann.id}`],
      ['DELETE', `/groups/g/connections/${ann.id}`],
      ['DELETE', `/connections/${ann.id}/groups/h`],
      ['PUT', '/groups/g/users/ann'],
      ['PUT', '/users/ann/groups/h'],
      ['GET', '/groups/g/users/ann'],
      ['GET', '/users/ann/groups/h'],
      ['DELETE', '/groups/g/users/ann'],
      ['DELETE', '/users/ann/groups/h'],
      ['DELETE', '/users/ann/groups'],
      ['DELETE', `/connections/${ann.id}`],
    ]) {
      const { status, body } = await room.call(method, path + slash, { type: 'text/plain' });
      assert.equal(status, 200, `${method} ${path}${slash}: ${body}`);
    }
    assert.equal((await ann.end()).code, 1000);
    await room.upstream.disconnects.next();
  }
});

test('every route answers with its exact status for what is not there', async () => {
  const room = stage.room();
  const gone = await absentConnection(room);
  for (const slash of ['', '/']) {
    for (const [status, method, path] of [
      [200, 'POST', ''],
      [200, 'POST', '/users/nobody'],
      [200, 'POST', `/connections/${gone}`],
      [200, 'POST', '/connections/not-an-id'],
      [200, 'POST', '/groups/nothing'],
      [404, 'HEAD', '/users/nobody'],
      [404, 'HEAD', `/connections/${gone}`],
      [404, 'HEAD', '/connections/not-an-id'],
      [404, 'HEAD', '/groups/nothing'],
      [404, 'PUT', `/groups/g/connections/${gone}`],
      [404, 'PUT', '/connections/not-an-id/groups/g'],
      [200, 'DELETE', `/groups/g/connections/${gone}`],
      [200, 'DELETE', `/connections/${gone}/groups/g`],
      [200, 'DELETE', `/connections/${gone}`],
      [200, 'DELETE', '/connections/not-an-id'],
      [404, 'GET', '/groups/g/users/nobody'],
      [404, 'GET', '/users/nobody/groups/g'],
      [200, 'DELETE', '/groups/g/users/nobody'],
      [200, 'DELETE', '/users/nobody/groups/g'],
      [200, 'DELETE', '/users/nobody/groups'],
      [404, 'POST', '/rooms/x'],
      [404, 'POST', '/users'],
      [404, 'DELETE', '/groups/g/users'],
    ]) {
      const answer = await room.call(method, path + slash, { type: 'text/plain' });
      assert.equal(answer.status, status, `${method} ${path}${slash}: ${answer.body}`);
      if (method === 'HEAD') assert.equal(answer.body, '', 'HEAD has no body');
    }
  }
});

test('without a hub there is nothing: 404', async () => {
  const hubless = client(stage.service.connectionString);
  await assert.rejects(hubless.broadcast('x'), { status: 404 });
  assert.equal(await hubless.connectionExists('x'), false);
  await assert.rejects(hubless.closeConnection('x', 'why not'), { status: 404 });
});

test('methods that a path does not take are refused', async () => {
  const room = stage.room();
  for (const [method, path] of [
    ['GET', '/'],
    ['PUT', '/users/ann'],
    ['PATCH', '/groups/g'],
    ['POST', '/groups/g/users/ann'],
    ['GET', '/groups/g/connections/x'],
    ['GET', '/users/ann/groups'],
  ]) {
    const { status, headers } = await room.call(method, path);
    assert.equal(status, 405, `${method} ${path}`);
    assert.ok(headers.allow, 'what it takes is said');
  }
});

test('names that are none are refused', async () => {
  const room = stage.room();
  for (const path of ['/groups/%20', '/users/%20', '/users/a%0Ab', '/groups/%ff', `/groups/${'g'.repeat(1025)}`]) {
    assert.equal((await room.call('POST', path)).status, 400, path.slice(0, 40));
  }
  for (const hub of ['1hub', 'h%20b', `h${'x'.repeat(128)}`]) {
    const path = `/ws/api/v1/hubs/${hub}/`;
    const headers = { Authorization: `Bearer ${token(path)}` };
    assert.equal((await request(stage.service.url + path, { method: 'POST', headers })).status, 400, hub.slice(0, 40));
  }
});

test('hub names do not heed their case', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const shouted = client(stage.service.connectionString, room.hub.toUpperCase());
  await shouted.broadcast('from a hub in capitals');
  assert.equal(await shouted.connectionExists(ann.id), true);
  await room.got([ann, text('from a hub in capitals')]);
});

test('a body of 1 MiB passes, one byte more is refused, and the service goes on', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const data = 'x'.repeat(1024 * 1024);
  assert.equal((await room.call('POST', '/', { data, type: 'text/plain' })).status, 200);
  assert.equal((await room.call('POST', '/', { data: `${data}x`, type: 'text/plain' })).status, 413);
  await room.got([ann, text(data)]);
});

test('a body whose length is not announced is sent whole', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const { status } = await room.call('POST', '/', { data: Readable.from(['a body ', 'in ', 'parts']), type: 'text/plain' });
  assert.equal(status, 200);
  const endless = Readable.from((function* megabytes() {
    for (;;) yield Buffer.alloc(64 * 1024);
  })());
  const refused = await room.call('POST', '/', { data: endless, type: 'text/plain' }).catch((error) => error);
  assert.ok(refused.status === 413 || ['ECONNRESET', 'EPIPE'].includes(refused.code), `${refused.status ?? refused.code}`);
  await room.got([ann, text('a body in parts')]);
});

test('messages of one sender arrive in order on every connection', async () => {
  const room = stage.room();
  const sockets = [await room.join('ann'), await room.join('ann'), await room.join('ann')];
  await room.library.addToGroup('g', 'ann');
  const sent = [];
  for (let at = 0; at < 60; at += 1) {
    const message = `message ${at}`;
    if (at % 3 === 0) await room.library.broadcast(message);
    else if (at % 3 === 1) await room.library.sendToUser('ann', message);
    else await room.library.sendToGroup('g', message);
    sent.push(text(message));
  }
  await room.got(...sockets.map((socket) => [socket, ...sent]));
});

test('calls that are made at the same time are all done, each once', async () => {
  const room = stage.room();
  const users = Array.from({ length: 10 }, (_, at) => `user ${at}`);
  const sockets = await Promise.all(users.map((user) => Socket.open(room.url(`?user=${encodeURIComponent(user)}`))));
  await Promise.all(users.map((user) => room.library.addToGroup('g', user)));
  const messages = Array.from({ length: 100 }, (_, at) => `message ${at}`);
  await Promise.all([
    ...messages.map((message) => room.library.sendToGroup('g', message)),
    ...users.map((user) => room.library.sendToUser(user, `for ${user}`)),
    ...users.map(async (user) => assert.equal(await room.library.userExists(user), true)),
  ]);
  for (const [at, socket] of sockets.entries()) {
    const got = new Set();
    for (let count = 0; count <= messages.length; count += 1) got.add((await socket.next()).data);
    assert.deepEqual(got, new Set([...messages, `for ${users[at]}`]));
  }
  await room.got(...sockets.map((socket) => [socket]));
});

test('both keys open the service, and so does every way in which callers write the audience', async () => {
  const room = stage.room();
  const base = `/ws/api/v1/hubs/${room.hub}`;
  const { port } = new URL(stage.service.url);
  const headers = (...arguments_) => ({ Authorization: `Bearer ${token(...arguments_)}`, 'Content-Type': 'text/plain' });
  for (const [path, authorization] of [
    [`${base}/`, headers(`${base}/`, { key: SECONDARY_KEY })],
    [`${base}/`, headers(base)],
    [base, headers(`${base}/`)],
    [base, headers(base.toUpperCase())],
    [base, headers(base, { host: 'localhost' })],
    [base, headers(base, { host: `127.0.0.1:${port}` })],
    [base, headers(base, { host: 'LOCALHOST:8080' })],
    // Later versions sign the query too.
    [`${base}/users/u`, headers(`${base}/users/u?api-version=1`)],
    // The oldest sample does not encode; its HTTP client does.
    [`${base}/groups/a%20b`, headers(`${base}/groups/a b`)],
    [`${base}/groups/a%20b`, headers(`${base}/groups/a%20b`)],
    [base, headers(base, { iss: 'chat', sub: 'whoever', expiresIn: '12h' })],
  ]) {
    const { status, body } = await request(stage.service.url + path, { method: 'POST', headers: authorization, data: 'x' });
    assert.equal(status, 200, `${path}: ${body}`);
  }
});

test('the library works with an endpoint named localhost too', async () => {
  const room = stage.room();
  const { port } = new URL(stage.service.url);
  const library = client(`Endpoint=http://localhost;Port=${port};AccessKey=${PRIMARY_KEY};Version=1.0;`, room.hub);
  const ann = await room.join('ann');
  await library.sendToConnection(ann.id, 'by name');
  await room.got([ann, text('by name')]);
});

test('bad tokens are refused with 401 and change nothing', async () => {
  const room = stage.room();
  const ann = await room.join('ann');
  const path = `/ws/api/v1/hubs/${room.hub}/`;
  const forged = (() => {
    const [head, body, signature] = token(path).split('.');
    const claims = JSON.parse(Buffer.from(body, 'base64url'));
    const changed = Buffer.from(JSON.stringify({ ...claims, exp: claims.exp + 60 })).toString('base64url');
    return `${head}.${changed}.${signature}`;
  })();
  const withoutExpiry = (() => {
    const [, body] = token(path).split('.');
    return body;
  })();
  for (const [what, authorization] of [
    ['none at all', undefined],
    ['another scheme', `Basic ${Buffer.from('user:password').toString('base64')}`],
    ['nothing after Bearer', 'Bearer '],
    ['no token', 'Bearer x'],
    ['one part of a token', `Bearer ${withoutExpiry}`],
    ['expired', `Bearer ${token(path, { expiresIn: '-1h' })}`],
    ['another key', `Bearer ${token(path, { key: PRIMARY_KEY.toLowerCase() })}`],
    ['changed', `Bearer ${forged}`],
    ['unsigned', `Bearer ${token(path, { algorithm: 'none', key: '' })}`],
    ['HS384', `Bearer ${token(path, { algorithm: 'HS384' })}`],
    ['HS512', `Bearer ${token(path, { algorithm: 'HS512' })}`],
    ['another hub', `Bearer ${token('/ws/api/v1/hubs/other/')}`],
    ['a client token', `Bearer ${token(`/ws/client/hubs/${room.hub}/`)}`],
    ['a longer path', `Bearer ${token(`${path}users/u`)}`],
    ['another host', `Bearer ${token(path, { host: 'example.org' })}`],
    ['not yet valid', `Bearer ${token(path, { nbf: Math.floor(Date.now() / 1000) + 3600 })}`],
  ]) {
    const { status, body } = await request(stage.service.url + path, {
      method: 'POST',
      data: 'forged',
      headers: { 'Content-Type': 'text/plain', ...(authorization && { Authorization: authorization }) },
    });
    assert.equal(status, 401, what);
    const sent = authorization?.replace('Bearer ', '');
    assert.ok(!sent || sent.length < 10 || !body.includes(sent), 'a token is never repeated');
  }
  const wrongKey = client(stage.service.connectionString.replace(PRIMARY_KEY, PRIMARY_KEY.toLowerCase()), room.hub);
  await assert.rejects(wrongKey.userExists('ann'), { status: 401 });
  await room.got([ann]);
});
