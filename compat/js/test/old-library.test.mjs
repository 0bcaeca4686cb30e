// The stand-in for the old library does on the wire what the notes on the protocol say it did. Nothing of the service is needed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { after, test } from 'node:test';

import jwt from 'jsonwebtoken';

import fromEnvironment, { client, parseConnectionString } from '../lib/old-library.mjs';

const KEY = 'a-key-with=signs+in/it-and-32-bytes!';

const requests = [];
let answer = (response) => response.end();
const server = http.createServer(async (request, response) => {
  let body = '';
  for await (const part of request) body += part;
  requests.push({ method: request.method, url: request.url, headers: request.headers, body });
  answer(response);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const { port } = server.address();
after(() => server.close());

const library = client(`Endpoint=http://127.0.0.1;Port=${port};AccessKey=${KEY};Version=1.0;`, 'chat');

/** Makes one call and returns its request, with the token's claims. */
async function wire(call) {
  requests.length = 0;
  await call;
  assert.equal(requests.length, 1);
  const [request] = requests;
  const claims = jwt.verify(request.headers.authorization.replace('Bearer ', ''), KEY, { algorithms: ['HS256'] });
  return { ...request, claims };
}

test('every call has the method, path, audience and body that the old library sends', async () => {
  const base = '/ws/api/v1/hubs/chat/';
  for (const [call, method, path, body = ''] of [
    [library.broadcast('to all'), 'POST', '', 'to all'],
    [library.sendToConnection('abc', 'to one'), 'POST', 'connections/abc', 'to one'],
    [library.sendToUser('ä/b c', 'to a user'), 'POST', 'users/%C3%A4%2Fb%20c', 'to a user'],
    [library.sendToGroup("it's", 'to a group'), 'POST', "groups/it's", 'to a group'],
    [library.addConnectionToGroup('a b', 'abc'), 'PUT', 'groups/a%20b/connections/abc'],
    [library.removeConnectionFromGroup('a b', 'abc'), 'DELETE', 'groups/a%20b/connections/abc'],
    [library.addToGroup('a b', 'x@y'), 'PUT', 'groups/a%20b/users/x%40y'],
    [library.removeFromGroup('a b', 'x@y'), 'DELETE', 'groups/a%20b/users/x%40y'],
    [library.removeFromAllGroups('x@y'), 'DELETE', 'users/x%40y/groups'],
    [library.closeConnection('abc'), 'DELETE', 'connections/abc'],
    [library.userExists('x@y'), 'HEAD', 'users/x%40y'],
    [library.groupExists('a b'), 'HEAD', 'groups/a%20b'],
    [library.connectionExists('abc'), 'HEAD', 'connections/abc'],
  ]) {
    // All are on their way at once; each is found by what it asks.
    await call;
    const at = requests.findIndex((request) => request.method === method && request.url === base + path);
    assert.notEqual(at, -1, `${method} ${path}`);
    const [request] = requests.splice(at, 1);
    assert.equal(request.body, body);
    assert.equal(request.headers['content-type'], 'text/plain', `${method} ${path}`);
    const { aud, exp, iat } = jwt.verify(request.headers.authorization.replace('Bearer ', ''), KEY);
    assert.equal(aud, `http://127.0.0.1${base}${path}`);
    assert.equal(exp - iat, 3600);
  }
});

test('a close reason is signed as it was given and encoded by the HTTP client alone', async () => {
  const { url, claims } = await wire(library.closeConnection('abc', 'time is up, ä'));
  assert.equal(url, '/ws/api/v1/hubs/chat/connections/abc?reason=time%20is%20up,%20%C3%A4');
  assert.equal(claims.aud, 'http://127.0.0.1/ws/api/v1/hubs/chat/connections/abc?reason=time is up, ä');
});

test('without a hub the paths name none', async () => {
  const hubless = client(`Endpoint=http://127.0.0.1:1;Port=${port};AccessKey=${KEY};`);
  assert.equal((await wire(hubless.connectionExists('abc'))).url, '/ws/api/v1/connections/abc');
});

test('exists is true for 2xx, false for 404 and an error otherwise; without an answer it is a TypeError', async () => {
  const status = (code) => (response) => response.writeHead(code).end();
  answer = status(204);
  assert.equal(await library.userExists('u'), true);
  answer = status(404);
  assert.equal(await library.userExists('u'), false);
  await assert.rejects(library.broadcast('x'), { status: 404 });
  answer = status(500);
  await assert.rejects(library.groupExists('g'), { status: 500 });
  answer = (response) => response.socket.destroy();
  await assert.rejects(library.connectionExists('c'), TypeError);
  answer = (response) => response.end();
});

test('a connection string is read value by value, each up to its semicolon', () => {
  assert.deepEqual(parseConnectionString(`Endpoint=https://example.org:8443/;AccessKey=${KEY};Version=1.0;`), {
    endpoint: 'https://example.org:8443',
    port: undefined,
    accessKey: KEY,
  });
  assert.throws(() => parseConnectionString(`Endpoint=http://localhost;AccessKey=${KEY}`), /AccessKey/);
  assert.throws(() => parseConnectionString(undefined), /Endpoint/);
});

test('connection string and hub come from the environment', async () => {
  process.env.AzureSignalRConnectionString = `Endpoint=http://127.0.0.1:${port};AccessKey=${KEY};`;
  process.env.HubName = 'of_the_environment';
  const log = [];
  const { url, claims } = await wire(fromEnvironment({ log: (line) => log.push(line) }).broadcast('hi'));
  assert.equal(url, '/ws/api/v1/hubs/of_the_environment/');
  assert.equal(claims.aud, 'http://127.0.0.1/ws/api/v1/hubs/of_the_environment/');
  assert.deepEqual(log, ['POST /ws/api/v1/hubs/of_the_environment/']);
});

test('client URLs use the ws scheme and end in a slash; a user comes in a token', () => {
  const url = `ws://127.0.0.1:${port}/ws/client/hubs/chat/`;
  assert.equal(library.clientEndpoint(), url);
  const withUser = new URL(library.clientEndpoint('ann', { role: 'guest' }));
  const { aud, sub, role } = jwt.verify(withUser.searchParams.get('access_token'), KEY);
  assert.deepEqual([aud, sub, role], ['http://127.0.0.1/ws/client/hubs/chat/', 'ann', 'guest']);
});

test('an event is read from lower-case headers, its query with or without a question mark', () => {
  const headers = {
    'x-asrs-connection-id': 'abc',
    'x-asrs-hub': 'chat',
    'x-asrs-category': 'connections',
    'x-asrs-event': 'connect',
    'x-asrs-user-id': 'ann',
    'x-asrs-client-query': '?name=a%20b&x=1&x=2',
  };
  const event = library.event(headers);
  assert.deepEqual([event.connectionId, event.userId, event.isConnect], ['abc', 'ann', true]);
  assert.deepEqual({ ...event.query }, { name: 'a b', x: ['1', '2'] });
  assert.deepEqual({ ...library.event({ ...headers, 'x-asrs-client-query': 'name=b' }).query }, { name: 'b' });
  assert.deepEqual(library.event({ 'x-asrs-event': 'message' }).query, {});
});
