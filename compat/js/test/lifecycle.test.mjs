// Start, health, metrics, the end; and what the service says when it cannot start.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';

import { deferred, eventually, within } from '../lib/mailbox.mjs';
import { client } from '../lib/old-library.mjs';
import { PRIMARY_KEY, Service, binaryPath } from '../lib/service.mjs';
import { Socket, refusal, text } from '../lib/socket.mjs';
import { Stage, request, token } from '../lib/stage.mjs';

/** Returns the sum of a metric over all shards and labels that hold `label`. */
function metric(page, name, label = '') {
  const lines = page.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  const counted = lines.filter((line) => line.includes(label));
  return counted.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

/** Sets a stage that is cleared after the test, however that went. */
async function staged(t, configuration) {
  const stage = await Stage.set(configuration);
  t.after(() => stage.clear());
  return stage;
}

test('health is told to everybody, without a token', async (t) => {
  const stage = await staged(t);
  const { status } = await request(`${stage.service.url}/api/v1/health`);
  assert.equal(status, 200);
  const head = await request(`${stage.service.url}/api/v1/health`, { method: 'HEAD' });
  assert.deepEqual([head.status, head.body], [200, '']);
  assert.equal((await request(`${stage.service.url}/nothing/here`)).status, 404);
  await stage.end();
});

test('metrics count what happens', async (t) => {
  const stage = await staged(t);
  const room = stage.room();
  const page = async () => {
    const { status, body, headers } = await request(`${stage.service.url}/metrics`);
    assert.equal(status, 200);
    assert.match(headers['content-type'], /^text\/plain/);
    return body;
  };
  const [ann, bob] = [await room.join('ann'), await room.join('bob')];
  ann.send('12345');
  await room.upstream.messages.next();
  await room.library.broadcast('to both');
  await ann.next();
  await bob.next();
  await refusal(room.url());
  await room.upstream.connects.next();
  await bob.close();
  await room.upstream.disconnects.next();
  const counted = (body) => ({
    connections: metric(body, 'hookwire_connections'),
    in: metric(body, 'hookwire_messages_in_total'),
    out: metric(body, 'hookwire_deliveries_total'),
    slow: metric(body, 'hookwire_slow_consumers_total'),
    queued: metric(body, 'hookwire_queue_bytes'),
    connects: metric(body, 'hookwire_upstream_calls_total', 'event="connect"'),
    messages: metric(body, 'hookwire_upstream_calls_total', 'event="message"'),
    disconnects: metric(body, 'hookwire_upstream_calls_total', 'event="disconnect"'),
  });
  const expected = { connections: 1, in: 1, out: 2, slow: 0, queued: 0, connects: 3, messages: 1, disconnects: 1 };
  let body;
  await eventually(async () => {
    body = await page();
    return JSON.stringify(counted(body)) === JSON.stringify(expected);
  }, 'the counters').catch(() => assert.deepEqual(counted(body), expected));
  assert.ok(5 < metric(body, 'hookwire_received_bytes_total'));
  assert.ok('to both'.length < metric(body, 'hookwire_sent_bytes_total'));
  assert.ok(0 < metric(body, 'hookwire_turn_seconds_count'));
  assert.ok(0 < metric(body, 'hookwire_upstream_call_duration_seconds_count', 'event="message"'));
  for (const line of body.split('\n').filter((one) => one !== '' && !one.startsWith('#'))) {
    assert.match(line, /^[a-z_]+(\{[^{}]*\})? -?[\d.e+-]+$/, 'the text format of Prometheus');
  }
  assert.ok(!body.includes(room.hub) && !body.includes('ann'), 'names of users and hubs are not in it');
  await stage.end();
});

test('SIGTERM says goodbye: clients get 1001, the upstream its disconnects, and the exit is clean', async (t) => {
  const stage = await staged(t);
  const room = stage.room({ message: (_, response) => response.status(200).end('answer') });
  const sockets = [];
  for (let at = 0; at < 10; at += 1) sockets.push(await room.join(`user ${at}`));
  await room.library.broadcast('last words');
  sockets[0].send('a question');
  assert.deepEqual(await sockets[0].next(), text('last words'));
  assert.deepEqual(await sockets[0].next(), text('answer'));
  stage.service.signal('SIGTERM');
  for (const socket of sockets) assert.equal((await socket.end()).code, 1001);
  for (const socket of sockets.slice(1)) assert.deepEqual(socket.untaken, [text('last words')], 'what was sent before arrived');
  const told = new Set();
  for (const _ of sockets) told.add((await room.upstream.disconnects.next()).connectionId);
  assert.deepEqual(told, new Set(sockets.map(({ id }) => id)));
  assert.deepEqual(await stage.service.exit(), { code: 0, signal: null });
  const socket = net.connect(Number(new URL(stage.service.url).port), '127.0.0.1');
  const refused = new Promise((resolve, reject) => {
    socket.once('error', resolve);
    socket.once('connect', () => reject(new Error('somebody still listens')));
  });
  assert.equal((await within(refused, 'the refusal')).code, 'ECONNREFUSED');
  assert.deepEqual(stage.upstream.faults(), []);
});

test('SIGINT ends it in the same way', async (t) => {
  const stage = await staged(t);
  const ann = await stage.room().join('ann');
  stage.service.signal('SIGINT');
  assert.equal((await ann.end()).code, 1001);
  assert.deepEqual(await stage.service.exit(), { code: 0, signal: null });
  assert.deepEqual(stage.upstream.faults(), []);
});

test('the end waits for an upstream that still thinks, and a message on its way arrives first', async (t) => {
  const stage = await staged(t);
  const [asked, answer] = [deferred(), deferred()];
  const room = stage.room({
    disconnect: async (_, response) => {
      asked.resolve();
      await answer.promise;
      response.status(200).end();
    },
  });
  const ann = await room.join('ann');
  ann.send('one');
  ann.send('two');
  assert.equal((await room.upstream.messages.next()).text, 'one');
  assert.equal((await room.upstream.messages.next()).text, 'two');
  stage.service.signal('SIGTERM');
  await within(asked.promise, 'the disconnect event');
  assert.equal((await ann.end()).code, 1001);
  const exit = stage.service.exit();
  assert.equal(stage.service.isRunning, true);
  answer.resolve();
  assert.deepEqual(await exit, { code: 0, signal: null });
  assert.deepEqual(room.upstream.log.map(([event]) => event), ['connect', 'message', 'message', 'disconnect']);
});

test('a second SIGTERM ends it at once, whatever is still waited for', async (t) => {
  const stage = await staged(t, '[limits]\nshutdown_seconds_max = 600');
  const asked = deferred();
  const room = stage.room({ disconnect: () => asked.resolve() });
  const ann = await room.join('ann');
  stage.service.signal('SIGTERM');
  assert.equal((await ann.end()).code, 1001);
  await within(asked.promise, 'the disconnect event');
  // That event is never answered, so a clean end would not come for minutes.
  stage.service.signal('SIGTERM');
  const { code } = await stage.service.exit();
  assert.equal(code, 143);
});

test('an upstream that is not there, or hangs, is a bad gateway within the time that was set', async (t) => {
  const stage = await staged(t, '[upstream]\nconnect_seconds_max = 1');
  const room = stage.room({ connect: () => {} });
  assert.equal((await refusal(room.url('?user=ann'))).status, 502, 'it hangs');
  assert.equal((await room.upstream.connects.next()).event, 'connect');
  await stage.upstream.end();
  assert.equal((await refusal(room.url('?user=ann'))).status, 502, 'it is not there');
  assert.equal((await request(`${stage.service.url}/api/v1/health`)).status, 200);
  assert.deepEqual(await stage.service.stop(), { code: 0, signal: null });
});

test('without any upstream a token with a user is enough, and messages go nowhere', async (t) => {
  const service = await Service.start();
  t.after(() => service.clear());
  const library = client(service.connectionString, 'alone');
  const ann = await Socket.open(library.clientEndpoint('ann'));
  assert.equal((await refusal(library.clientEndpoint())).status, 401);
  ann.send('to nobody');
  await library.sendToUser('ann', 'hi');
  assert.deepEqual(await ann.next(), text('hi'));
  assert.deepEqual(await service.stop(), { code: 0, signal: null });
  assert.equal((await ann.end()).code, 1001);
});

test('neither keys nor tokens are in the log', async (t) => {
  const stage = await staged(t);
  const room = stage.room();
  const ann = await room.join('ann');
  const access = token(`/ws/client/hubs/${room.hub}`, { sub: 'ann', expiresIn: '-1h' });
  await refusal(room.url(`?access_token=${access}&marker=in-the-query`));
  await room.library.broadcast('a payload');
  await ann.next();
  await stage.end();
  const { log } = stage.service;
  assert.ok(0 < log.length);
  for (const secret of [PRIMARY_KEY, access, access.split('.')[2], 'in-the-query', 'a payload']) assert.ok(!log.includes(secret), secret);
});

test('a faulty configuration is told fault by fault, with exit code 2', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'hookwire-compat-'));
  const file = path.join(folder, 'hookwire.toml');
  await writeFile(
    file,
    'listen = ["nowhere"]\naccess_keys = ["short"]\nunknown_key = 1\n[[upstream.template]]\nhub_pattern = ","\nurl_template = "ftp://x"\n',
  );
  const ended = new Promise((resolve) => {
    execFile(binaryPath(), ['serve', '--config', file], { env: {} }, (error, stdout, stderr) => {
      resolve({ code: error?.code, stdout, stderr });
    });
  });
  const { code, stdout, stderr } = await within(ended, 'the end of the service');
  assert.equal(code, 2);
  assert.equal(stdout, '');
  for (const place of [/listen/, /access_keys/, /unknown_key/, /upstream\.template\[0\]\.hub_pattern/, /upstream\.template\[0\]\.url_template/]) {
    assert.match(stderr, place);
  }
  assert.ok(!stderr.includes('short'), 'a key is not repeated, not even one that is none');
  await rm(folder, { recursive: true });
});
