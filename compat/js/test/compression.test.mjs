// permessage-deflate with clients of the npm package `ws`, in both dialects.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { Socket, text } from '../lib/socket.mjs';
import { Stage } from '../lib/stage.mjs';

const stage = await Stage.set(
  '[defaults]\nanonymous_connect = "allow"\npermessage_deflate = { min_bytes = 64, level = 6 }',
);
after(() => stage.end().finally(() => stage.clear()));

const story = 'It was a dark and stormy night. '.repeat(300);

/** What clients may offer. Our answer must suit each of them. */
const OFFERS = {
  plain: false,
  usual: true,
  eager: { threshold: 0 },
  narrow: { threshold: 0, serverMaxWindowBits: 10, clientMaxWindowBits: 9 },
  forgetful: { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true },
};

/** Returns a client of Web PubSub. */
const webPubSub = (room, protocols, compression) =>
  Socket.open(`ws://${stage.service.address}/client/hubs/${room.hub}`, { protocols, compression });

test('a message reaches clients with and without compression, in few bytes where it is compressed', async () => {
  const room = stage.room();
  const sockets = {};
  for (const [name, compression] of Object.entries(OFFERS)) {
    const preview = await room.join(name, { compression });
    const simple = await webPubSub(room, [], compression);
    for (const socket of [preview, simple]) {
      const used = socket.extensions;
      assert.equal(/permessage-deflate/.test(used), compression !== false, `${name}: ${used}`);
    }
    sockets[name] = [preview, simple];
  }
  const before = Object.values(sockets).flat().map((socket) => [socket, socket.wireBytes]);
  for (let round = 0; round < 3; round++) await room.library.broadcast(story);
  await room.library.broadcast('short');
  for (const socket of Object.values(sockets).flat()) {
    for (let round = 0; round < 3; round++) assert.deepEqual(await socket.next(), text(story));
    assert.deepEqual(await socket.next(), text('short'));
  }
  for (const [socket, bytes] of before) {
    const came = socket.wireBytes - bytes;
    if (socket.extensions) assert.ok(came < (3 * story.length) / 10, `${came} bytes`);
    else assert.ok(3 * story.length < came, `${came} bytes`);
  }
});

test('clients of the subprotocols, reliable or not, get compressed messages', async () => {
  const room = stage.room();
  for (const protocol of ['json.webpubsub.azure.v1', 'json.reliable.webpubsub.azure.v1']) {
    const socket = await webPubSub(room, [protocol], OFFERS.usual);
    const received = async () => JSON.parse((await socket.next()).data);
    assert.equal((await received()).event, 'connected');
    const before = socket.wireBytes;
    for (let round = 1; round <= 3; round++) {
      await room.library.broadcast(story + round);
      const message = await received();
      assert.equal(message.data, story + round);
      assert.equal(message.sequenceId, protocol.includes('reliable') ? round : undefined);
    }
    assert.ok(socket.wireBytes - before < story.length / 5);
    await socket.close();
  }
});

test('what clients compress reaches the upstream as it was', async () => {
  const room = stage.room();
  for (const [name, compression] of Object.entries(OFFERS)) {
    const socket = await room.join(name, { compression });
    for (const message of [story, '', 'ü'.repeat(1000), Buffer.alloc(100_000, 7)]) {
      socket.send(message);
      const event = await room.upstream.messages.next();
      assert.deepEqual(Buffer.from(event.body), Buffer.from(message), name);
    }
    await socket.close();
  }
});

test('a compressed message above the limit ends its connection with 1009', async () => {
  const room = stage.room();
  const socket = await room.join('bomber', { compression: OFFERS.eager });
  socket.send(Buffer.alloc(2 * 1024 * 1024));
  assert.equal((await socket.end()).code, 1009);
  const witness = await room.join('witness', { compression: OFFERS.eager });
  await room.library.broadcast(story);
  assert.deepEqual(await witness.next(), text(story));
});
