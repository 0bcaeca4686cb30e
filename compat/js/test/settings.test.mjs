// The settings API: by a page in a browser, with good and bad settings, and over restarts.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import axios from 'axios';

import { client } from '../lib/old-library.mjs';
import { PRIMARY_KEY, SECONDARY_KEY, Service } from '../lib/service.mjs';
import { Socket, refusal, text } from '../lib/socket.mjs';
import { request, token } from '../lib/stage.mjs';
import { Upstream } from '../lib/upstream.mjs';

const PATH = '/manage/v1/ws/upstream';
const ORIGIN = 'https://manage.example:8443';

let upstream;
let service;
before(async () => {
  upstream = await Upstream.start();
  service = await Service.start({ template: upstream.template });
});
after(async () => {
  try {
    assert.deepEqual(await service.stop(), { code: 0, signal: null });
    assert.deepEqual(upstream.faults(), []);
  } finally {
    await service.clear();
    await upstream.end();
  }
});

const authorization = (options) => ({ Authorization: `Bearer ${token(PATH, options)}` });

async function read() {
  const { status, body } = await request(service.url + PATH, { headers: authorization() });
  assert.equal(status, 200);
  return JSON.parse(body);
}

async function write(settings, headers = authorization()) {
  const data = typeof settings === 'string' ? settings : JSON.stringify(settings);
  return request(service.url + PATH, { method: 'POST', data, headers: { ...headers, 'Content-Type': 'application/json' } });
}

/**
 * Does what a page of another origin may do, by the rules of the Fetch standard (section 3.2, "CORS protocol"): a preflight
 * first, the request only if that allows it, the answer only if it says so too.
 */
async function asPage(method, { headers = {}, data } = {}) {
  const simple = (name, value) => name === 'content-type' && /^(text\/plain|multipart\/form-data|application\/x-www-form-urlencoded)/.test(value);
  const unsafe = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]).filter(([name, value]) => !simple(name, value));
  const list = (value) => (value ?? '').split(',').map((one) => one.trim().toLowerCase());
  const readable = (answer) => assert.ok(['*', ORIGIN].includes(answer.headers['access-control-allow-origin']), `${method}: the page may not read this`);
  if (0 < unsafe.length) {
    const preflight = await request(service.url + PATH, {
      method: 'OPTIONS',
      headers: {
        Origin: ORIGIN,
        'Access-Control-Request-Method': method,
        'Access-Control-Request-Headers': unsafe.map(([name]) => name).sort().join(','),
      },
    });
    assert.ok(200 <= preflight.status && preflight.status < 300, `the preflight was answered with ${preflight.status}`);
    readable(preflight);
    const allowed = list(preflight.headers['access-control-allow-headers']);
    // A star does not cover the authorization header.
    for (const [name] of unsafe) assert.ok(allowed.includes(name), `${name} among ${allowed}`);
    const methods = list(preflight.headers['access-control-allow-methods']);
    assert.ok(['GET', 'POST', 'HEAD'].includes(method) || methods.includes(method.toLowerCase()));
  }
  const answer = await request(service.url + PATH, { method, data, headers: { ...headers, Origin: ORIGIN } });
  readable(answer);
  return answer;
}

test('the settings of the configuration are what is in force at first', async () => {
  const { templates } = await read();
  assert.deepEqual(templates, [{ urlTemplate: upstream.template }]);
});

test('what is written is read back and takes effect at once, first match first', async () => {
  const [one, two] = [upstream.hub('first'), upstream.hub('second')];
  const settings = {
    templates: [
      { hubPattern: 'shared_a, SHARED_B', categoryPattern: 'connections', eventPattern: 'connect, disconnect', urlTemplate: `${upstream.url}/first/{category}/{event}?hub={hub}&event={event}` },
      { hubPattern: 'shared_a', categoryPattern: 'messages', eventPattern: '*', urlTemplate: `${upstream.url}/second/{category}/{event}` },
      { hubPattern: 'shared_a', urlTemplate: `${upstream.url}/nobody/comes/here` },
      { hubPattern: 'shared_c', eventPattern: 'message', urlTemplate: `${upstream.url}/second/{category}/{event}` },
    ],
  };
  const written = await write(settings);
  assert.equal(written.status, 200);
  assert.deepEqual(await read(), settings);

  const base = `ws://${service.address}/ws/client/hubs`;
  const ann = await Socket.open(`${base}/Shared_A/?user=ann`);
  const connect = await one.connects.next();
  assert.equal(connect.url, '/first/connections/connect?hub=shared_a&event=connect');
  ann.send('to the second');
  const message = await two.messages.next();
  assert.deepEqual([message.text, message.userId, message.hub], ['to the second', 'ann', 'shared_a']);
  await ann.close();
  assert.equal((await one.disconnects.next()).connectionId, connect.connectionId);

  // A pattern in capitals matches too; messages of this hub have no upstream, which harms nobody.
  const bob = await Socket.open(`${base}/shared_b/?user=bob`);
  await one.connects.next();
  bob.send('to nobody');
  await client(service.connectionString, 'shared_b').sendToUser('bob', 'here I am');
  assert.deepEqual(await bob.next(), text('here I am'));
  await bob.close();
  await one.disconnects.next();

  // Nobody is asked about this hub's connects: a token decides alone.
  assert.equal((await refusal(`${base}/shared_c/?user=cy`)).status, 401);
  const access = token('/ws/client/hubs/shared_c', { sub: 'cy' });
  const cy = await Socket.open(`${base}/shared_c/?access_token=${access}`);
  cy.send('hello');
  const { connectionId, userId } = await two.messages.next();
  assert.equal(userId, 'cy');
  // It has no connect event and, by these patterns, no disconnect event.
  two.connections.delete(connectionId);
  await cy.close();
});

test('an event decided after a change goes to the new place, connections stay', async () => {
  const [before_, after_] = [upstream.hub('before_change'), upstream.hub('after_change')];
  const to = (hub) => ({ templates: [{ urlTemplate: `${upstream.url}/${hub}/{category}/{event}` }] });
  await write(to('before_change'));
  const ann = await Socket.open(`ws://${service.address}/ws/client/hubs/changing/?user=ann`);
  const { connectionId } = await before_.connects.next();
  ann.send('one');
  assert.equal((await before_.messages.next()).text, 'one');
  await write(to('after_change'));
  ann.send('two');
  assert.equal((await after_.messages.next()).text, 'two');
  await ann.close();
  assert.equal((await after_.disconnects.next()).connectionId, connectionId);
  // The record of each is half of one whole.
  assert.equal(before_.connections.get(connectionId).disconnects + after_.connections.get(connectionId).disconnects, 1);
  before_.connections.clear();
  after_.connections.clear();
});

test('a page of another origin can read and write the settings', async () => {
  const settings = { templates: [{ hubPattern: 'a', urlTemplate: `${upstream.url}/a/{category}/{event}` }] };
  const written = await asPage('POST', {
    headers: { ...authorization(), 'Content-Type': 'application/json' },
    data: JSON.stringify(settings),
  });
  assert.equal(written.status, 200);
  const got = await asPage('GET', { headers: { ...authorization(), 'Content-Type': 'application/json' } });
  assert.equal(got.status, 200);
  assert.match(got.headers['content-type'], /^application\/json/);
  assert.deepEqual(JSON.parse(got.body), settings);
  // The page can read what is wrong, too.
  const json = { 'Content-Type': 'application/json' };
  assert.equal((await asPage('POST', { headers: { ...authorization(), ...json }, data: '{"templates":[{}]}' })).status, 400);
  assert.equal((await asPage('GET')).status, 401);
  assert.deepEqual(await read(), settings);
});

test('the settings need a token for exactly them', async () => {
  const before_ = await read();
  assert.equal((await request(service.url + PATH, { headers: authorization({ key: SECONDARY_KEY }) })).status, 200);
  assert.equal((await request(service.url + PATH, { headers: authorization({ host: 'localhost' }) })).status, 200);
  for (const headers of [
    {},
    authorization({ key: PRIMARY_KEY.toLowerCase() }),
    authorization({ expiresIn: '-1h' }),
    authorization({ algorithm: 'none', key: '' }),
    { Authorization: `Bearer ${token('/ws/api/v1/hubs/chat/')}` },
    { Authorization: `Bearer ${token('/manage/v1/ws')}` },
  ]) {
    assert.equal((await request(service.url + PATH, { headers })).status, 401);
    assert.equal((await write({ templates: [] }, headers)).status, 401);
  }
  for (const method of ['PUT', 'DELETE', 'PATCH']) {
    assert.equal((await request(service.url + PATH, { method, headers: authorization() })).status, 405, method);
  }
  assert.deepEqual(await read(), before_);
});

test('bad settings are refused with the reason and its place, and change nothing', async () => {
  const before_ = await read();
  const good = { urlTemplate: 'http://127.0.0.1:1/{event}' };
  for (const [settings, ...reasons] of [
    ['', /./],
    ['not JSON', /./],
    ['[]', /./],
    ['{}', /templates/],
    [{ templates: 'all' }, /templates|sequence/],
    [{ templates: [{}] }, /urlTemplate/],
    [{ templates: [{ urlTemplate: '' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [good, { urlTemplate: '/api/{event}' }] }, /templates\[1\]\.urlTemplate/],
    [{ templates: [{ urlTemplate: 'ftp://127.0.0.1/{event}' }] }, /templates\[0\]\.urlTemplate/, /ftp/],
    [{ templates: [{ urlTemplate: 'file:///etc/passwd' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [{ urlTemplate: 'http://{hub}.example/{event}' }] }, /templates\[0\]\.urlTemplate/, /host/],
    [{ templates: [{ urlTemplate: 'http://127.0.0.1:{hub}/' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [{ urlTemplate: '{hub}://127.0.0.1/' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [{ urlTemplate: 'http://user:secret@127.0.0.1/' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [{ urlTemplate: 'http://127.0.0.1/{user}' }] }, /templates\[0\]\.urlTemplate/, /\{user\}/],
    [{ templates: [{ urlTemplate: 'http://127.0.0.1/{event' }] }, /templates\[0\]\.urlTemplate/],
    [{ templates: [{ ...good, hubPattern: 'a,,b' }] }, /templates\[0\]\.hubPattern/],
    [{ templates: [{ ...good, hubPattern: '' }] }, /templates\[0\]\.hubPattern/],
    [{ templates: [{ ...good, eventPattern: 'con*' }] }, /templates\[0\]\.eventPattern/],
    [{ templates: [{ ...good, categoryPattern: 'a b' }] }, /templates\[0\]\.categoryPattern/],
    [{ templates: [{ ...good, hubPattern: 7 }] }, /./],
    [{ templates: Array.from({ length: 1000 }, () => good) }, /templates/],
    // All faults at once.
    [{ templates: [{ ...good, hubPattern: ',' }, { urlTemplate: 'x' }] }, /templates\[0\]\.hubPattern/, /templates\[1\]\.urlTemplate/],
  ]) {
    const { status, body } = await write(settings);
    assert.equal(status, 400, `${JSON.stringify(settings).slice(0, 100)}: ${body}`);
    for (const reason of reasons) assert.match(body, reason);
    assert.ok(!body.includes('secret'), 'a password is not repeated');
  }
  assert.deepEqual(await read(), before_);
});

test('what was set is there after a restart, over what the configuration says; memberships too', async () => {
  const hub = upstream.hub('kept');
  const settings = { templates: [{ hubPattern: 'kept', urlTemplate: `${upstream.url}/kept/{category}/{event}` }] };
  assert.equal((await write(settings)).status, 200);
  await client(service.connectionString, 'kept').addToGroup('g', 'ann');
  const ttl = '/ws/api/v1/hubs/kept/users/ann/groups/an%20hour';
  const bearer = { Authorization: `Bearer ${token(ttl)}` };
  assert.equal((await axios.put(`${service.url}${ttl}?ttl=3600`, undefined, { headers: bearer })).status, 200);

  for (const stop of ['SIGTERM', 'SIGKILL']) {
    service.signal(stop);
    await service.exit();
    service = await Service.start({ template: 'http://127.0.0.1:1/{event}', folder: service.folder });
    assert.deepEqual(await read(), settings, stop);
    const library = client(service.connectionString, 'kept');
    const socket = await Socket.open(`${library.clientEndpoint()}?user=ann`);
    await hub.connects.next();
    await library.sendToGroup('g', 'still in');
    await library.sendToGroup('an hour', 'still in this one');
    assert.deepEqual(await socket.next(), text('still in'));
    assert.deepEqual(await socket.next(), text('still in this one'));
    await socket.close();
    await hub.disconnects.next();
  }
});
