/** Several instances of the chat on one store, ended at any moment: what was acknowledged is there, once, in one order. */
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { eventually } from '../../js/lib/mailbox.mjs';
import { Service } from '../../js/lib/service.mjs';
import { Chat, Unavailable, folderOf } from '../lib/chat.mjs';
import { SmallS3 } from '../lib/small-s3.mjs';
import { Azurite, Folder } from '../lib/stores.mjs';

/** Instances that run side by side. */
const INSTANCES = 2;

/** Users that write at once, each one message after the other. */
const WRITERS = 8;

/** Messages in all; most of them by far lie in segments at the end. */
const MESSAGES = Number(process.env.HOOKWIRE_CHAT_MESSAGES ?? 800);

/** Acknowledged messages from one kill to the next, at most. */
const KILL_AFTER_MAX = 60;

/** Messages that one writer sends at a time. */
const TOGETHER = 3;

/** Versions of a conversation that may lie there when nobody writes any more: those that are kept, and those before the next look. */
const VERSIONS_LEFT_MAX = 8 + 16;

const seed = Number(process.env.HOOKWIRE_CHAT_SEED ?? Date.now() % 1_000_000);

/** Returns random whole numbers from 0 up to a bound (xorshift32). */
function randomNumbers(start) {
  let state = (start % 0xffff_fffe) + 1;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
}

for (const Store of [Folder, Azurite, SmallS3]) {
  test(`${INSTANCES} instances on ${Store.name} write one conversation and are killed, seed ${seed}`, async (t) => {
    const random = randomNumbers(seed);
    const service = await Service.start();
    t.after(() => service.clear());
    const store = await Store.make();
    t.after(() => store.clear());
    const start = () => Chat.start(service.connectionString, store.settings);
    const instances = await Promise.all(Array.from({ length: INSTANCES }, start));
    t.after(() => Promise.all(instances.map((instance) => instance.kill())));

    const acknowledged = new Map();
    let kills = 0;
    let untilKill = 1 + random(KILL_AFTER_MAX);
    let killing = Promise.resolve();
    const heard = (message) => {
      acknowledged.set(`${message.user} ${message.key}`, message);
      untilKill -= 1;
      if (untilKill === 0) {
        killing = killing.then(async () => {
          const victim = random(INSTANCES);
          await instances[victim].kill();
          instances[victim] = await start();
          kills += 1;
          untilKill = 1 + random(KILL_AFTER_MAX);
        });
      }
    };
    /** Sends one message, again with the same key until it is acknowledged, each time to any instance. */
    const send = async (user, key) => {
      const end = performance.now() + 120_000;
      for (;;) {
        try {
          const { message } = await instances[random(INSTANCES)].ask(user, { op: 'send', conversation: 'public', key, text: `${user} says ${key}` });
          heard(message);
          return;
        } catch (error) {
          if (!(error instanceof Unavailable) || end < performance.now()) throw error;
        }
      }
    };
    const write = async (user) => {
      for (let n = 0; n < MESSAGES / WRITERS; n += TOGETHER) {
        await Promise.all(Array.from({ length: TOGETHER }, (_, k) => send(user, `${n + k}`)));
      }
    };
    const users = Array.from({ length: WRITERS }, (_, n) => `user ${n}`);
    const begin = performance.now();
    await Promise.all(users.map(write));
    const seconds = (performance.now() - begin) / 1_000;
    await killing;
    assert.ok(3 < kills, `${kills} kills`);
    t.diagnostic(`${acknowledged.size} messages, ${kills} kills, ${Math.round(acknowledged.size / seconds)} messages/s`);

    const histories = await Promise.all(instances.map((instance) => instance.history('user 0', 'public')));
    for (const history of histories) assert.deepEqual(history, histories[0]);
    const [history] = histories;
    assert.deepEqual(history.map(({ seq }) => seq), history.map((_, place) => place + 1), 'numbers without holes');
    const stored = new Map(history.map((message) => [`${message.user} ${message.key}`, message]));
    assert.equal(stored.size, history.length, 'no message is there twice');
    assert.equal(stored.size, acknowledged.size);
    for (const [key, message] of acknowledged) assert.deepEqual(stored.get(key), message, 'as it was acknowledged');
    for (const user of users) {
      // What a user sent later stands later.
      const rounds = history.filter((message) => message.user === user).map(({ key }) => Math.floor(key / TOGETHER));
      assert.deepEqual(rounds, rounds.toSorted((a, b) => a - b));
    }

    if (store.conditional) {
      const { writes, refused } = store.conditional;
      assert.ok(0 < refused && refused < writes, `${refused} of ${writes} writes lost a race`);
    }

    // Old versions go, whoever wrote them.
    const versions = () => store.names(`${folderOf('public')}/versions/`);
    for (let n = 0; n < 2 * 16; n += 1) await send('user 0', `last ${n}`);
    await eventually(async () => (await versions()).length <= VERSIONS_LEFT_MAX, 'old versions are deleted', 40_000);
    const [read] = await Promise.all(instances.map((instance) => instance.history('user 0', 'public')));
    assert.equal(read.length, stored.size + 2 * 16);

    for (const instance of instances) {
      assert.deepEqual(await instance.stop(), { code: 0, signal: null }, instance.log);
      assert.ok(!instance.log.includes('panicked'), instance.log);
    }
  });
}
