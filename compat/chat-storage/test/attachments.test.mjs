/** Files of messages on a store: in parts, copied beside their conversation, the same for every instance. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';

import { DEADLINE_MS } from '../../js/lib/mailbox.mjs';
import { Service } from '../../js/lib/service.mjs';
import { Chat, folderOf } from '../lib/chat.mjs';
import { SmallS3 } from '../lib/small-s3.mjs';
import { Azurite, Folder } from '../lib/stores.mjs';

/** Sizes in bytes: in one part, in exactly one, in two, as large as it may be. */
const SIZES = [1, 5 << 20, (5 << 20) + 1, 10 << 20];

for (const Store of [Folder, Azurite, SmallS3]) {
  test(`files on ${Store.name} are there for every instance, also after a kill`, async (t) => {
    const service = await Service.start();
    t.after(() => service.clear());
    const store = await Store.make();
    t.after(() => store.clear());
    const start = () => Chat.start(service.connectionString, store.settings);
    const [one, other] = await Promise.all([start(), start()]);
    t.after(() => Promise.all([one.kill(), other.kill()]));

    const files = SIZES.map((size) => randomBytes(size));
    const receipts = await Promise.all(
      files.map(async (body) => {
        const { upload } = await one.ask('ann', { op: 'attach', conversation: 'public', name: 'a.bin', size: body.length });
        const answer = await other.fetch(upload, { method: 'POST', body });
        assert.equal(answer.status, 201);
        return (await answer.json()).receipt;
      }),
    );
    const { message } = await one.ask('ann', { op: 'send', conversation: 'public', key: 'k', text: '', attachments: receipts });
    await one.kill();

    const [read] = await other.history('bob', 'public');
    assert.deepEqual(read.attachments.map(({ id, size }) => [id, size]), message.attachments.map(({ id }, place) => [id, SIZES[place]]));
    for (const [place, { url }] of read.attachments.entries()) {
      const answer = await other.fetch(url);
      assert.equal(answer.status, 200);
      assert.ok(files[place].equals(Buffer.from(await answer.arrayBuffer())), `${SIZES[place]} bytes`);
    }
    assert.equal((await store.names(`${folderOf('public')}/attachments/`)).length, SIZES.length);
    assert.equal((await store.names('uploads/')).length, SIZES.length, 'kept until they are swept');

    // A larger one than was announced is nowhere.
    const { upload } = await other.ask('ann', { op: 'attach', conversation: 'public', name: 'a.bin', size: 6 << 20 });
    const parts = async function* () {
      for (let n = 0; n < 8; n += 1) {
        await setImmediate();
        yield new Uint8Array(1 << 20);
      }
    };
    const body = ReadableStream.from(parts());
    const answer = await other.fetch(upload, { method: 'POST', body, duplex: 'half', signal: AbortSignal.timeout(DEADLINE_MS) }).catch((error) => error);
    // The server need not wait for what it does not want, so the client may see a broken connection instead.
    assert.ok(answer instanceof Error || answer.status === 413, `${answer.status}`);
    assert.equal((await store.names('uploads/')).length, SIZES.length);
    assert.deepEqual(await other.stop(), { code: 0, signal: null }, other.log);
    assert.ok(!other.log.includes('panicked'), other.log);
  });
}
