/** What a long conversation costs: a number of requests that does not depend on how long it is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Service } from '../../js/lib/service.mjs';
import { Chat, folderOf } from '../lib/chat.mjs';
import { Counting } from '../lib/counting.mjs';
import { Azurite, Folder } from '../lib/stores.mjs';

const MESSAGES = 100_000;

/** Part of the format. */
const SEGMENT_MESSAGES = 64;

/** One listing, one read, and the segments of 100 messages. */
const OPEN_REQUESTS_MAX = 4;

/** The same for a page in the middle, which may touch one segment more. */
const PAGE_REQUESTS_MAX = 5;

/** Objects that are written at a time. */
const WRITES_AT_ONCE = 16;

/** Writes a conversation as it is documented. */
async function fill(store) {
  const message = (seq) => ({ user: 'ann', key: `key ${seq}`, text: `This is message ${seq}.`, time: '2026-01-01T12:00:00.000Z' });
  const messages = (from, count) => Array.from({ length: count }, (_, n) => message(from + n));
  const number = (n) => `${n}`.padStart(20, '0');
  const folder = folderOf('public');
  const sealed = MESSAGES - SEGMENT_MESSAGES - (MESSAGES % SEGMENT_MESSAGES);
  const starts = Array.from({ length: sealed / SEGMENT_MESSAGES }, (_, n) => n * SEGMENT_MESSAGES + 1);
  const writing = Array.from({ length: WRITES_AT_ONCE }, async () => {
    for (let from = starts.pop(); from; from = starts.pop()) {
      const segment = { format: 1, conversation: 'public', from, messages: messages(from, SEGMENT_MESSAGES) };
      await store.put(`${folder}/segments/${number(from)}.json`, JSON.stringify(segment));
    }
  });
  await Promise.all(writing);
  const tail = messages(sealed + 1, MESSAGES - sealed);
  const document = { id: 'public', title: '', members: [], invited: [], sealed, tail };
  await store.put(`${folder}/versions/${number(9_000)}.json`, JSON.stringify({ format: 1, marks: [1], document }));
}

/** Opens the conversation and a page in its middle, a few times. Returns the milliseconds of each opening. */
async function open(chat, each) {
  const times = [];
  for (let n = 0; n < 10; n += 1) {
    const begin = performance.now();
    const { messages } = await each(OPEN_REQUESTS_MAX, () => chat.ask('ann', { op: 'open', conversation: 'public', limit: 100 }));
    times.push(performance.now() - begin);
    assert.deepEqual([messages.length, messages[0].seq, messages.at(-1).seq], [100, MESSAGES - 99, MESSAGES]);
    const before = 50_000 + n;
    const page = await each(PAGE_REQUESTS_MAX, () => chat.ask('ann', { op: 'open', conversation: 'public', limit: 100, before }));
    assert.deepEqual([page.messages.length, page.messages.at(-1).seq, page.more], [100, before - 1, true]);
  }
  return times.toSorted((a, b) => a - b);
}

const told = (times) => `opening ${MESSAGES} messages: ${times[4].toFixed(1)} ms, ${times.at(-1).toFixed(1)} ms at most`;

test('a conversation of 100,000 messages opens by four requests to Azure Blob at most', async (t) => {
  const service = await Service.start();
  t.after(() => service.clear());
  const store = await Azurite.make();
  t.after(() => store.clear());
  await fill(store);
  const counting = await Counting.before(store.url);
  t.after(() => counting.end());
  const environment = { AzureWebJobsStorage: store.connectionString(counting.url) };
  const chat = await Chat.start(service.connectionString, { words: [], environment });
  t.after(() => chat.kill());

  const times = await open(chat, async (max, work) => {
    const { result, requests } = await counting.during(work);
    assert.ok(1 < requests.length && requests.length <= max, requests.join('\n'));
    return result;
  });
  t.diagnostic(told(times));

  // The keys of the newest 16 segments are read once; then a message is one write and one listing.
  const send = (key) => chat.ask('bob', { op: 'send', conversation: 'public', key, text: 'So it is.' });
  await chat.ask('bob', { op: 'hello' });
  await send('first');
  const { requests, result } = await counting.during(() => send('second'));
  assert.equal(result.message.seq, MESSAGES + 2);
  const about = requests.filter((request) => request.includes(folderOf('public').split('/')[1]));
  assert.deepEqual(about.map((request) => request.split(' ')[0]), ['PUT', 'GET'], requests.join('\n'));
});

test('a conversation of 100,000 messages opens in a folder', async (t) => {
  const service = await Service.start();
  t.after(() => service.clear());
  const store = await Folder.make();
  t.after(() => store.clear());
  await fill(store);
  const chat = await Chat.start(service.connectionString, store.settings);
  t.after(() => chat.kill());
  t.diagnostic(told(await open(chat, (_, work) => work())));
});
