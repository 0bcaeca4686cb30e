// Many messages through reliable official clients whose connections break at random: none is lost, repeated or out of order.
//
// HOOKWIRE_SOAK_MESSAGES sets how many, HOOKWIRE_SOAK_SEED how the cuts fall.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { setMaxListeners } from 'node:events';
import { after, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

import { WebPubSubJsonReliableProtocol } from '@azure/web-pubsub-client';

import { protobufReliableProtocol } from '../lib/protobuf-protocol.mjs';
import { Stage } from '../lib/stage.mjs';

const MESSAGES = Number(process.env.HOOKWIRE_SOAK_MESSAGES ?? 100_000);
const SEED = Number(process.env.HOOKWIRE_SOAK_SEED ?? randomInt(2 ** 31));

/** Clients in a ring: each sends to the next one. */
const CLIENTS = 20;
/** What one client sends at most: below what fills the service's memory for a client, which acknowledges once a second. */
const MESSAGES_PER_SECOND_MAX = 200;
/** Seconds between two cuts of one client's connection, at least and at most. */
const CUT_SECONDS = [1, 6];

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

/** Returns numbers from 0 to 1 that look random and are the same for the same seed. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test(`${MESSAGES} messages through ${CLIENTS} clients that are cut off at random (seed ${SEED})`, async (context) => {
  const hub = stage.hub();
  const share = Math.ceil(MESSAGES / CLIENTS);
  const next = random(SEED);
  const done = new AbortController();
  setMaxListeners(CLIENTS, done.signal);
  let cuts = 0;

  const ring = [];
  for (let at = 0; at < CLIENTS; at += 1) {
    const proxy = await stage.proxy();
    const grant = { userId: `${at}`, groups: [`to ${at}`], roles: ['webpubsub.sendToGroup'] };
    const client = await hub.client(grant, {
      protocol: at % 2 === 0 ? WebPubSubJsonReliableProtocol() : protobufReliableProtocol(),
      proxy,
      messageRetryOptions: { maxRetries: 1_000, retryDelayInMs: 50 },
    });
    ring.push({ client, proxy, group: `to ${at}` });
  }

  /** Sends one message after the other, at its pace; one whose answer got lost is sent again under the same id. */
  const send = async ({ client }, { group }) => {
    const start = performance.now();
    for (let number = 0; number < share; number += 1) {
      const early = start + (number * 1_000) / MESSAGES_PER_SECOND_MAX - performance.now();
      if (1 < early) await setTimeout(early);
      await client.sdk.sendToGroup(group, `${number}`, 'text', { ackId: number + 1 });
    }
  };

  const receive = async ({ client }) => {
    for (let number = 0; number < share; number += 1) {
      const { data } = await client.next();
      // Compared by hand: this is done very often.
      if (data !== `${number}`) assert.fail(`${client.user} has got ${data} instead of ${number}`);
    }
  };

  const cut = async ({ proxy }) => {
    const [least, most] = CUT_SECONDS;
    while (!done.signal.aborted) {
      await setTimeout((least + next() * (most - least)) * 1_000, undefined, { signal: done.signal }).catch(() => {});
      if (done.signal.aborted) return;
      cuts += 1;
      // One in three finds the way closed for a while.
      if (next() < 1 / 3) {
        const noticed = proxy.attempt();
        proxy.refuse();
        await noticed;
        proxy.allow();
      } else {
        proxy.cut();
      }
    }
  };

  const cutting = ring.map((member) => cut(member));
  const traffic = ring.flatMap((member, at) => [send(member, ring[(at + 1) % CLIENTS]), receive(member)]);
  await Promise.all(traffic);
  done.abort();
  await Promise.all(cutting);

  // Nothing comes after the last one, and nobody has had to start anew.
  await hub.got(...ring.map(({ client }) => [client]));
  for (const { client } of ring) {
    assert.deepEqual([client.connects.untaken, client.disconnects.untaken], [[], []]);
    assert.deepEqual([client.sequenceIds.length, client.sequenceIds.at(-1)], [share + 1, share + 1]);
  }
  context.diagnostic(`${share * CLIENTS} messages, ${cuts} cuts`);
});
