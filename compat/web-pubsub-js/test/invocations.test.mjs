// The official client: events that are asked as questions.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { InvocationError, WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol } from '@azure/web-pubsub-client';

import { deferred } from '../../js/lib/mailbox.mjs';
import { Observed, arrayBuffer, fromServer } from '../lib/client.mjs';
import { Stage } from '../lib/stage.mjs';

const stage = await Stage.set({ upstream: true });
after(() => stage.end().finally(() => stage.clear()));

const BYTES = [0, 1, 127, 128, 255];

for (const protocol of [WebPubSubJsonProtocol, WebPubSubJsonReliableProtocol]) {
  const { name } = protocol();
  const start = (hub, options) => hub.client({ userId: 'ann' }, { protocol: protocol(), ...options });

  test(`${name}: what the upstream answers comes back to who has asked`, async () => {
    const hub = stage.hub({
      handlers: {
        handleUserEvent: ({ data, dataType }, response) =>
          response.success(dataType === 'json' ? JSON.stringify({ got: data }) : data, dataType),
      },
    });
    const [client, other] = [await start(hub), await start(hub)];
    const ask = async (...question) => {
      const { invocationId, dataType, data } = await client.sdk.invokeEvent('ask', ...question);
      assert.equal(typeof invocationId, 'string');
      return [dataType, data instanceof ArrayBuffer ? Buffer.from(data) : data];
    };
    assert.deepEqual(await ask('ünïcode 🎉', 'text'), ['text', 'ünïcode 🎉']);
    assert.deepEqual(await ask({ a: [1, null] }, 'json'), ['json', { got: { a: [1, null] } }]);
    assert.deepEqual(await ask(arrayBuffer(BYTES), 'binary'), ['binary', Buffer.from(BYTES)]);
    const { context, data, dataType } = await hub.upstream.events.next();
    assert.deepEqual([context.eventName, context.connectionId, context.userId], ['ask', client.id, 'ann']);
    assert.deepEqual([dataType, data], ['text', 'ünïcode 🎉']);
    // It is no message to anybody.
    await hub.got([client], [other]);
  });

  test(`${name}: an answer without content is one, too`, async () => {
    const hub = stage.hub({ handlers: { handleUserEvent: (_, response) => response.success() } });
    const client = await start(hub);
    const { invocationId, data } = await client.sdk.invokeEvent('ask', 'x', 'text', { invocationId: 'my own / ünïcode' });
    assert.equal(invocationId, 'my own / ünïcode');
    assert.ok(data === undefined || data.byteLength === 0, data);
  });

  test(`${name}: a failure comes back as one`, async () => {
    const hub = stage.hub({ handlers: { handleUserEvent: (_, response) => response.fail(400, 'no such question') } });
    const client = await start(hub);
    await assert.rejects(client.sdk.invokeEvent('ask', 'x', 'text', { invocationId: 'mine' }), (error) => {
      assert.ok(error instanceof InvocationError);
      assert.equal(error.invocationId, 'mine');
      assert.ok(error.errorDetail.name);
      assert.equal(typeof error.errorDetail.message, 'string');
      return true;
    });
    await hub.got([client]);
  });

  test(`${name}: two questions with one id are one too many`, async () => {
    const open = deferred();
    const hub = stage.hub({
      handlers: {
        handleUserEvent: async (_, response) => {
          await open.promise;
          response.success('yes', 'text');
        },
      },
    });
    const client = await start(hub);
    const first = client.sdk.invokeEvent('ask', 'x', 'text', { invocationId: 'mine' });
    await assert.rejects(client.sdk.invokeEvent('ask', 'y', 'text', { invocationId: 'mine' }), InvocationError);
    open.resolve();
    assert.equal((await first).data, 'yes');
    // Later it may be used again.
    assert.equal((await client.sdk.invokeEvent('ask', 'z', 'text', { invocationId: 'mine' })).data, 'yes');
  });

  test(`${name}: each of several questions gets its own answer`, async () => {
    const hub = stage.hub({ handlers: { handleUserEvent: ({ data }, response) => response.success(`re: ${data}`, 'text') } });
    const client = await start(hub);
    const questions = Array.from({ length: 20 }, (_, at) => `${at}`);
    const answers = await Promise.all(questions.map((question) => client.sdk.invokeEvent('ask', question, 'text')));
    assert.deepEqual(answers.map(({ data }) => data), questions.map((question) => `re: ${question}`));
  });

  test(`${name}: a question that is taken back gets no answer, and the next one does`, async () => {
    const open = deferred();
    const hub = stage.hub({
      handlers: {
        handleUserEvent: async ({ data }, response) => {
          if (data === 'slow') await open.promise;
          response.success(data, 'text');
        },
      },
    });
    const observed = new Observed(protocol());
    const [cancels, responses] = [observed.of('cancelInvocation'), observed.of('invokeResponse')];
    const client = await hub.client({ userId: 'ann', roles: ['webpubsub.joinLeaveGroup'] }, { protocol: observed });
    const controller = new AbortController();
    const asked = client.sdk.invokeEvent('ask', 'slow', 'text', { abortSignal: controller.signal });
    await hub.upstream.events.next();
    controller.abort();
    await assert.rejects(asked, InvocationError);
    const { invocationId } = await cancels.next();
    // What comes after the cancellation is acknowledged after it: now the answer cannot cross it.
    await client.sdk.joinGroup('g');
    open.resolve();
    assert.equal((await client.sdk.invokeEvent('ask', 'quick', 'text')).data, 'quick');
    await hub.got([client]);
    assert.ok(!responses.untaken.some((response) => response.invocationId === invocationId), 'answered nevertheless');
  });

  test(`${name}: a question ends with the transport, and is not repeated`, async () => {
    const open = deferred();
    const hub = stage.hub({
      handlers: {
        handleUserEvent: async ({ data }, response) => {
          if (data === 'slow') await open.promise;
          response.success(data, 'text');
        },
      },
    });
    const proxy = await stage.proxy();
    const client = await start(hub, { proxy, messageRetryOptions: { maxRetries: 3, retryDelayInMs: 10 } });
    const asked = client.sdk.invokeEvent('ask', 'slow', 'text');
    await hub.upstream.events.next();
    const failed = assert.rejects(asked, InvocationError);
    proxy.cut();
    await failed;
    open.resolve();
    if (!protocol().isReliableSubProtocol) await client.connected();
    await hub.got([client]);
    assert.equal((await client.sdk.invokeEvent('ask', 'quick', 'text')).data, 'quick');
    assert.deepEqual(hub.upstream.events.untaken.map(({ data }) => data), ['quick']);
  });

  test(`${name}: events, answers and questions keep their order`, async () => {
    const hub = stage.hub({ handlers: { handleUserEvent: ({ data }, response) => response.success(data, 'text') } });
    const client = await start(hub);
    const [, answer] = await Promise.all([
      client.sdk.sendEvent('tell', 'one', 'text'),
      client.sdk.invokeEvent('ask', 'two', 'text'),
      client.sdk.sendEvent('tell', 'three', 'text'),
    ]);
    assert.equal(answer.data, 'two');
    const order = [await hub.upstream.events.next(), await hub.upstream.events.next(), await hub.upstream.events.next()];
    assert.deepEqual(order.map(({ data }) => data), ['one', 'two', 'three']);
    await hub.got([client, fromServer('text', 'one'), fromServer('text', 'three')]);
  });
}
