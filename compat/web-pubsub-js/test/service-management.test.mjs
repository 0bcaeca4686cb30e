// The official server library: who is there, groups, permissions, closing.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { WebPubSubJsonProtocol } from '@azure/web-pubsub-client';

import { text } from '../../js/lib/socket.mjs';
import { fromGroup, fromServer } from '../lib/client.mjs';
import { Stage } from '../lib/stage.mjs';

/** Bytes of the reason in a close frame. */
const CLOSE_REASON_BYTES_MAX = 123;

const stage = await Stage.set();
after(() => stage.end().finally(() => stage.clear()));

const PLAIN = { contentType: 'text/plain' };
/** A client that stays closed. */
const ONCE = { protocol: WebPubSubJsonProtocol(), autoReconnect: false };

/** Returns the status that a call was answered with; calls take their options last. */
async function statusOf(call) {
  let status;
  await call({
    onResponse: (response) => {
      status = response.status;
    },
  });
  return status;
}

async function list(members) {
  const found = [];
  for await (const member of await members) found.push(member);
  return found;
}

const ids = (members) => members.map(({ connectionId }) => connectionId).sort();

test('every success has the status that the libraries expect', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const group = service.group('g');
  const client = await hub.client({ userId: 'ann', groups: ['g'] }, ONCE);
  const { id } = client;
  const grant = { targetName: 'g' };
  const expected = [
    [202, (options) => service.sendToAll('x', options)],
    [202, (options) => service.sendToUser('ann', 'x', options)],
    [202, (options) => service.sendToConnection(id, 'x', options)],
    [202, (options) => group.sendToAll('x', options)],
    [200, (options) => service.connectionExists(id, options)],
    [200, (options) => service.groupExists('g', options)],
    [200, (options) => service.userExists('ann', options)],
    [200, async (options) => (await group.listConnections(options)).next()],
    [200, (options) => group.addConnection(id, options)],
    [204, (options) => group.removeConnection(id, options)],
    [204, (options) => group.removeConnection(id, options)],
    [200, (options) => group.addUser('ann', options)],
    [204, (options) => group.removeUser('ann', options)],
    [204, (options) => group.removeUser('nobody', options)],
    [200, (options) => service.addConnectionsToGroups(['g'], '', options)],
    [200, (options) => service.removeConnectionsFromGroups(['g'], '', options)],
    [204, (options) => service.removeUserFromAllGroups('ann', options)],
    [204, (options) => service.removeUserFromAllGroups('nobody', options)],
    [204, (options) => service.removeConnectionFromAllGroups(id, options)],
    [204, (options) => service.removeConnectionFromAllGroups('nobody', options)],
    [200, (options) => service.grantPermission(id, 'sendToGroup', { ...grant, ...options })],
    [200, (options) => service.hasPermission(id, 'sendToGroup', { ...grant, ...options })],
    [204, (options) => service.revokePermission(id, 'sendToGroup', { ...grant, ...options })],
    [404, (options) => service.hasPermission(id, 'sendToGroup', { ...grant, ...options })],
    [404, (options) => service.groupExists('g', options)],
    [404, (options) => service.connectionExists('nobody', options)],
    [404, (options) => service.userExists('nobody', options)],
    [204, (options) => group.closeAllConnections(options)],
    [204, (options) => service.closeUserConnections('nobody', options)],
    [204, (options) => service.closeConnection('nobody', options)],
    [204, (options) => service.closeConnection(id, options)],
    [204, (options) => service.closeUserConnections('ann', options)],
    [204, (options) => service.closeAllConnections(options)],
  ];
  for (const [status, call] of expected) assert.equal(await statusOf(call), status, `${call}`);
  await client.stops.next();
});

test('connections, users and groups exist while somebody is there', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const name = 'Änn/é +&?#%41';
  const group = 'Räume / 1?&';
  const [one, two] = [await hub.client({ userId: name, groups: [group] }, ONCE), await hub.client({ userId: name }, ONCE)];
  assert.equal(await service.connectionExists(one.id), true);
  assert.equal(await service.userExists(name), true);
  assert.equal(await service.userExists(name.toLowerCase()), false);
  assert.equal(await service.groupExists(group), true);
  assert.equal(await service.groupExists(group.toLowerCase()), false);
  assert.equal(await service.connectionExists(`${one.id}x`), false);
  const other = stage.hub();
  assert.equal(await other.service.connectionExists(one.id), false);
  assert.equal(await other.service.userExists(name), false);
  assert.equal(await other.service.groupExists(group), false);

  await service.closeConnection(one.id);
  assert.equal(await service.connectionExists(one.id), false);
  assert.equal(await service.groupExists(group), false);
  assert.equal(await service.userExists(name), true);
  await service.closeConnection(two.id);
  assert.equal(await service.userExists(name), false);
});

test('connections are put into groups and taken out of them', async () => {
  const hub = stage.hub();
  const group = hub.service.group('Räume / 1?&');
  const [one, two] = [await hub.client(), await hub.client()];
  await group.sendToAll('too early', PLAIN);
  await group.addConnection(one.id);
  await group.addConnection(one.id);
  await group.sendToAll('for one', PLAIN);
  await group.addConnection(two.id);
  await group.sendToAll('for both', PLAIN);
  await group.removeConnection(one.id);
  await group.sendToAll('for two', PLAIN);
  await group.removeConnection(two.id);
  await group.sendToAll('too late', PLAIN);
  const said = (data) => fromGroup(group.groupName, 'text', data);
  await hub.got([one, said('for one'), said('for both')], [two, said('for both'), said('for two')]);
});

test('an absent connection and an absent user cannot be put into a group', async () => {
  const hub = stage.hub();
  const stranger = await stage.hub().client();
  for (const id of ['no-such-connection', stranger.id]) {
    await assert.rejects(hub.service.group('g').addConnection(id), { name: 'RestError', statusCode: 404 });
  }
  await assert.rejects(hub.service.group('g').addUser('nobody'), { name: 'RestError', statusCode: 404 });
  assert.equal(await hub.service.groupExists('g'), false);
});

test('a user is put into a group with the connections of this moment', async () => {
  const hub = stage.hub();
  const group = hub.service.group('g');
  const [laptop, phone, bob] = [await hub.client({ userId: 'ann' }), await hub.client({ userId: 'ann' }), await hub.client({ userId: 'bob' })];
  await group.addUser('ann');
  const tablet = await hub.client({ userId: 'ann' });
  await group.sendToAll('one', PLAIN);
  assert.deepEqual(ids(await list(group.listConnections())), [laptop.id, phone.id].sort());
  await group.addConnection(bob.id);
  await group.removeUser('ann');
  await group.sendToAll('two', PLAIN);
  const [one, two] = [fromGroup('g', 'text', 'one'), fromGroup('g', 'text', 'two')];
  await hub.got([laptop, one], [phone, one], [tablet], [bob, two]);
});

test('a user or a connection leaves all groups at once', async () => {
  const hub = stage.hub();
  const groups = ['a', 'b', 'c'];
  const [laptop, phone, bob] = [
    await hub.client({ userId: 'ann', groups }),
    await hub.client({ userId: 'ann', groups }),
    await hub.client({ userId: 'bob', groups }),
  ];
  await hub.service.removeConnectionFromAllGroups(laptop.id);
  await hub.service.group('a').sendToAll('1', PLAIN);
  await hub.service.removeUserFromAllGroups('ann');
  for (const group of groups) await hub.service.group(group).sendToAll('2', PLAIN);
  await hub.got(
    [laptop],
    [phone, fromGroup('a', 'text', '1')],
    [bob, fromGroup('a', 'text', '1'), ...groups.map((group) => fromGroup(group, 'text', '2'))],
  );
});

test('a filter puts connections into groups and takes them out', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const [ann, bob, nobody] = [await hub.client({ userId: 'ann' }), await hub.client({ userId: 'bob' }), await hub.client()];
  const members = async () => [
    ids(await list(service.group('a').listConnections())),
    ids(await list(service.group('b').listConnections())),
  ];
  await service.addConnectionsToGroups(['a', 'b'], 'userId ne null');
  assert.deepEqual(await members(), [[ann.id, bob.id].sort(), [ann.id, bob.id].sort()]);
  await service.removeConnectionsFromGroups(['a'], "userId eq 'ann'");
  assert.deepEqual(await members(), [[bob.id], [ann.id, bob.id].sort()]);
  await service.addConnectionsToGroups(['a'], "not ('b' in groups)");
  assert.deepEqual(await members(), [[bob.id, nobody.id].sort(), [ann.id, bob.id].sort()]);
  await service.removeConnectionsFromGroups(['a', 'b', 'absent'], '');
  assert.deepEqual(await members(), [[], []]);

  for (const filter of ['invalid filter', 'null']) {
    for (const call of ['addConnectionsToGroups', 'removeConnectionsFromGroups']) {
      await assert.rejects(service[call](['a'], filter), ({ statusCode, response }) => {
        assert.equal(statusCode, 400);
        assert.match(response.bodyAsText, /Invalid syntax for/);
        return true;
      });
    }
  }
  for (const groups of [[], [' '], ['a', ''], ['x'.repeat(1025)]]) {
    await assert.rejects(service.addConnectionsToGroups(groups, ''), { statusCode: 400 }, JSON.stringify(groups));
    await assert.rejects(service.removeConnectionsFromGroups(groups, ''), { statusCode: 400 }, JSON.stringify(groups));
  }
  assert.deepEqual(await members(), [[], []]);
});

test('the members of a group are listed, page by page', async () => {
  const hub = stage.hub();
  const group = hub.service.group('g');
  const users = {};
  for (let at = 0; at < 7; at += 1) {
    const grant = { groups: ['g'], ...(at !== 3 && { userId: `user ${at}` }) };
    const { id, user } = await hub.client(grant);
    users[id] = user;
  }
  const all = await list(group.listConnections());
  // In an order of the service's own, which is always the same.
  const everybody = all.map(({ connectionId }) => connectionId);
  assert.deepEqual([...everybody].sort(), Object.keys(users).sort());
  for (const member of all) {
    assert.deepEqual(member, { connectionId: member.connectionId, ...(users[member.connectionId] && { userId: users[member.connectionId] }) });
  }

  const pages = async (options, settings) => {
    const found = [];
    for await (const page of (await group.listConnections(options)).byPage(settings)) {
      found.push(page.map(({ connectionId }) => connectionId));
    }
    return found;
  };
  const slices = (...bounds) => bounds.map(([from, to]) => everybody.slice(from, to));
  assert.deepEqual(await pages(), [everybody]);
  assert.deepEqual(await pages({ maxPageSize: 3 }), slices([0, 3], [3, 6], [6, 7]));
  assert.deepEqual(await pages({ maxPageSize: 7 }), [everybody]);
  assert.deepEqual(await pages({ maxPageSize: 3, top: 5 }), slices([0, 3], [3, 5]));
  assert.deepEqual(await pages({ maxPageSize: 3, top: 3 }), slices([0, 3]));
  assert.deepEqual(await pages({ top: 2 }), slices([0, 2]));
  assert.deepEqual(await pages({ maxPageSize: 200, top: 1000 }), [everybody]);
  const byTwo = await list(group.listConnections({ maxPageSize: 2 }));
  assert.deepEqual(byTwo.map(({ connectionId }) => connectionId), everybody);
  assert.deepEqual(await list(hub.service.group('nobody').listConnections()), []);
  await assert.rejects(pages(undefined, { maxPageSize: 3 }), /not supported/);
  for (const options of [{ maxPageSize: 201 }, { maxPageSize: 0 }, { top: 0 }]) {
    await assert.rejects(pages(options), { statusCode: 400 });
  }
});

test('a listing goes on where it stopped', async () => {
  const hub = stage.hub();
  const group = hub.service.group('g');
  const members = [];
  for (let at = 0; at < 5; at += 1) await hub.client({ groups: ['g'] });
  for (const { connectionId } of await list(group.listConnections())) members.push(connectionId);
  let nextLink;
  const onResponse = (response) => {
    ({ nextLink } = JSON.parse(response.bodyAsText));
  };
  await (await group.listConnections({ maxPageSize: 2, onResponse })).byPage().next();
  assert.ok(nextLink.startsWith(`${stage.service.url}/api/hubs/${hub.name}/groups/g/connections?`), nextLink);

  const rest = [];
  for await (const page of (await group.listConnections()).byPage({ continuationToken: nextLink })) rest.push(page.map(({ connectionId }) => connectionId));
  assert.deepEqual(rest, [members.slice(2, 4), members.slice(4)]);

  const continuationToken = new URL(nextLink).searchParams.get('continuationToken');
  const later = await list(group.listConnections({ continuationToken }));
  assert.deepEqual(later.map(({ connectionId }) => connectionId), members.slice(2));
  for (const faulty of ['', 'nonsense', `${continuationToken}x`]) {
    await assert.rejects(list(group.listConnections({ continuationToken: faulty })), { statusCode: 400 }, faulty);
  }
});

test('a permission is granted, seen, used and revoked', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const client = await hub.client({ userId: 'ann' });
  const may = async (targetName) => [
    await service.hasPermission(client.id, 'joinLeaveGroup', { targetName }),
    await service.hasPermission(client.id, 'sendToGroup', { targetName }),
  ];
  const forbidden = { errorDetail: { name: 'Forbidden', message: 'Permission denied.' } };
  assert.deepEqual(await may('g'), [false, false]);
  await assert.rejects(client.sdk.joinGroup('g'), forbidden);

  await service.grantPermission(client.id, 'joinLeaveGroup', { targetName: 'g' });
  assert.deepEqual(await may('g'), [true, false]);
  assert.deepEqual(await may('G'), [false, false]);
  await client.sdk.joinGroup('g');
  await assert.rejects(client.sdk.sendToGroup('g', 'x', 'text'), forbidden);
  await service.grantPermission(client.id, 'sendToGroup', { targetName: 'g' });
  assert.deepEqual(await may('g'), [true, true]);
  await client.sdk.sendToGroup('g', 'x', 'text');
  await assert.rejects(client.sdk.sendToGroup('h', 'x', 'text'), forbidden);

  await service.revokePermission(client.id, 'joinLeaveGroup', { targetName: 'g' });
  assert.deepEqual(await may('g'), [false, true]);
  await assert.rejects(client.sdk.leaveGroup('g'), forbidden);
  // Who has joined stays in.
  await service.group('g').sendToAll('y', PLAIN);
  await hub.got([client, fromGroup('g', 'text', 'x', 'ann'), fromGroup('g', 'text', 'y')]);
});

test('a revoked permission beats a role until it is granted again', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const client = await hub.client({ roles: ['webpubsub.sendToGroup'] });
  const target = { targetName: 'g' };
  assert.equal(await service.hasPermission(client.id, 'sendToGroup', target), true);
  await service.revokePermission(client.id, 'sendToGroup', target);
  assert.equal(await service.hasPermission(client.id, 'sendToGroup', target), false);
  assert.equal(await service.hasPermission(client.id, 'sendToGroup', { targetName: 'h' }), true);
  await assert.rejects(client.sdk.sendToGroup('g', 'x', 'text'), { errorDetail: { name: 'Forbidden', message: 'Permission denied.' } });
  await client.sdk.sendToGroup('h', 'x', 'text');
  await service.grantPermission(client.id, 'sendToGroup', target);
  await client.sdk.sendToGroup('g', 'x', 'text');
});

test('permissions are of connections that are there, and of the two kinds that exist', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const { id } = await hub.client();
  const target = { targetName: 'g' };
  await assert.rejects(service.grantPermission('no-such-connection', 'sendToGroup', target), { statusCode: 404 });
  assert.equal(await service.hasPermission('no-such-connection', 'sendToGroup', target), false);
  await assert.rejects(service.grantPermission(id, 'everything', target), { statusCode: 400 });
  await assert.rejects(service.hasPermission(id, 'everything', target), { statusCode: 400 });
  await assert.rejects(service.revokePermission(id, 'everything', target), { statusCode: 400 });
});

test('a closed connection hears the reason, in the message and in the close frame', async () => {
  const hub = stage.hub();
  const [json, bare] = [await hub.client({ userId: 'ann' }, ONCE), await hub.client({ userId: 'bob' }, ONCE)];
  const simple = await hub.socket({ userId: 'eve' });
  const reason = 'go away, ünïcode & more';
  await hub.service.closeConnection(json.id, { reason });
  const { connectionId, message } = await json.disconnects.next();
  assert.equal(connectionId, json.id);
  assert.equal(message.message, reason);
  await json.stops.next();

  await hub.service.closeConnection(bare.id);
  assert.equal(typeof (await bare.disconnects.next()).message.message, 'string');

  await hub.service.closeUserConnections('eve', { reason });
  assert.deepEqual(await simple.end(), { code: 1000, reason });
});

test('a reason that no close frame can hold is cut, at the end of a character', async () => {
  const hub = stage.hub();
  const simple = await hub.socket({ userId: 'ann' });
  const json = await hub.client({ userId: 'ann' }, ONCE);
  const reason = 'ü'.repeat(CLOSE_REASON_BYTES_MAX);
  await hub.service.closeUserConnections('ann', { reason });
  const { code, reason: heard } = await simple.end();
  assert.equal(code, 1000);
  assert.ok(Buffer.byteLength(heard) <= CLOSE_REASON_BYTES_MAX, heard);
  assert.ok(100 <= Buffer.byteLength(heard) && reason.startsWith(heard), heard);
  assert.equal((await json.disconnects.next()).message.message, reason);
});

test('all connections of a hub, of a user, of a group are closed, and no others', async () => {
  const hub = stage.hub();
  const { service } = hub;
  const open = async (userId, ...groups) => hub.client({ userId, groups }, ONCE);
  const [ann1, ann2, bob, eve] = [await open('ann', 'g'), await open('ann'), await open('bob', 'g'), await open('eve')];
  const stranger = await stage.hub().client({ userId: 'ann', groups: ['g'] });

  await service.group('g').closeAllConnections({ reason: 'group' });
  assert.equal((await ann1.disconnects.next()).message.message, 'group');
  assert.equal((await bob.disconnects.next()).message.message, 'group');
  assert.equal(await service.groupExists('g'), false);
  await hub.got([ann2], [eve]);

  await service.closeUserConnections('ann', { reason: 'user' });
  assert.equal((await ann2.disconnects.next()).message.message, 'user');
  assert.equal(await service.userExists('ann'), false);
  await hub.got([eve]);

  await service.closeAllConnections({ reason: 'hub' });
  assert.equal((await eve.disconnects.next()).message.message, 'hub');
  assert.equal(await service.connectionExists(eve.id), false);
  assert.equal(stranger.disconnects.untaken.length, 0);
});

test('connections that are excluded from closing stay', async () => {
  const hub = stage.hub();
  const open = async () => hub.client({ userId: 'ann', groups: ['g'] }, ONCE);
  for (const close of [
    (options) => hub.service.closeAllConnections(options),
    (options) => hub.service.closeUserConnections('ann', options),
    (options) => hub.service.group('g').closeAllConnections(options),
  ]) {
    const [stays, goes] = [await open(), await open()];
    await close({ excluded: [stays.id, 'nobody'], reason: 'not all' });
    assert.equal((await goes.disconnects.next()).message.message, 'not all');
    await hub.got([stays]);
    await hub.service.closeConnection(stays.id);
    await stays.stops.next();
  }
});

test('what was sent before a close arrives before it', async () => {
  const hub = stage.hub();
  const [json, simple] = [await hub.client({ userId: 'ann' }, ONCE), await hub.socket({ userId: 'ann' })];
  const numbers = Array.from({ length: 50 }, (_, at) => `${at}`);
  for (const number of numbers) await hub.service.sendToUser('ann', number, PLAIN);
  await hub.service.closeUserConnections('ann');
  await json.stops.next();
  await simple.end();
  assert.deepEqual(json.untaken, numbers.map((number) => fromServer('text', number)));
  assert.deepEqual(simple.untaken, numbers.map(text));
});
