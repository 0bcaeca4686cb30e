// The official server library: how it is made, the tokens that it gives to clients, how it learns that something went wrong.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { AzureKeyCredential, WebPubSubServiceClient, odata } from '@azure/web-pubsub';
import jwt from 'jsonwebtoken';

import { PRIMARY_KEY, SECONDARY_KEY } from '../../js/lib/service.mjs';
import { refusal, text } from '../../js/lib/socket.mjs';
import { ALL_ROLES, INSECURE, Stage } from '../lib/stage.mjs';

/** A name for the service that only its configuration knows. */
const PUBLIC_NAME = 'hookwire.example';

const stage = await Stage.set({
  configuration: () => `public_endpoints = ["http://127.0.0.1", "http://${PUBLIC_NAME}"]`,
});
after(() => stage.end().finally(() => stage.clear()));

const { address } = stage.service;
const PLAIN = { contentType: 'text/plain' };

const connectionStrings = {
  'as documented': `Endpoint=http://${address};AccessKey=${PRIMARY_KEY};Version=1.0;`,
  'without a semicolon at the end': `Endpoint=http://${address};AccessKey=${PRIMARY_KEY};Version=1.0`,
  'with a slash after the endpoint': `Endpoint=http://${address}/;AccessKey=${PRIMARY_KEY};Version=1.0;`,
  'with the port apart': `Endpoint=http://127.0.0.1;AccessKey=${PRIMARY_KEY};Version=1.0;Port=${address.split(':')[1]}`,
  'in other cases and another order': `accesskey=${PRIMARY_KEY};ENDPOINT=http://${address}`,
  'with the secondary key': `Endpoint=http://${address};AccessKey=${SECONDARY_KEY};Version=1.0;`,
};

for (const [form, connectionString] of Object.entries(connectionStrings)) {
  test(`a connection string ${form} is enough`, async () => {
    const hub = stage.hub();
    const client = new WebPubSubServiceClient(connectionString, hub.name, INSECURE);
    assert.equal(client.hubName, hub.name);
    assert.equal(client.apiVersion, '2024-12-01');
    const { url } = await client.getClientAccessToken({ userId: 'ann' });
    const json = stage.client(url);
    assert.equal((await json.start()).userId, 'ann');
    await client.sendToAll('hello', PLAIN);
    assert.equal((await json.next()).data, 'hello');
    assert.equal(await client.userExists('ann'), true);
  });
}

for (const [name, key] of [
  ['primary', PRIMARY_KEY],
  ['secondary', SECONDARY_KEY],
]) {
  test(`an endpoint with the ${name} key is enough`, async () => {
    const hub = stage.hub();
    const client = new WebPubSubServiceClient(`http://${address}`, new AzureKeyCredential(key), hub.name, INSECURE);
    assert.equal(client.endpoint, `http://${address}`);
    const socket = await hub.socket();
    await client.sendToAll('hello', PLAIN);
    await hub.got([socket, text('hello')]);
  });
}

test('a key that is changed in its credential is the one that counts', async () => {
  const hub = stage.hub();
  const credential = new AzureKeyCredential('x'.repeat(44));
  const client = new WebPubSubServiceClient(`http://${address}`, credential, hub.name, INSECURE);
  await assert.rejects(client.sendToAll('no'), { statusCode: 401 });
  credential.update(PRIMARY_KEY);
  await client.sendToAll('yes');
});

test('requests that come by way of a reverse proxy are signed for the name behind it', async () => {
  const hub = stage.hub();
  const socket = await hub.socket({ userId: 'ann', groups: ['g'] });
  const credential = new AzureKeyCredential(PRIMARY_KEY);
  const options = { ...INSECURE, reverseProxyEndpoint: `http://${address}` };
  const client = new WebPubSubServiceClient(`http://${PUBLIC_NAME}`, credential, hub.name, options);
  await client.sendToAll('to all', PLAIN);
  await client.group('g').sendToAll('to the group', { ...PLAIN, filter: odata`userId eq ${'ann'}` });
  assert.equal(await client.userExists('ann'), true);
  await hub.got([socket, text('to all'), text('to the group')]);

  const stranger = new WebPubSubServiceClient('http://elsewhere.example', credential, hub.name, options);
  await assert.rejects(stranger.sendToAll('no'), { statusCode: 401 });
});

test('what is no connection string is not sent anywhere', () => {
  assert.throws(() => new WebPubSubServiceClient(`AccessKey=${PRIMARY_KEY}`, 'hub'), TypeError);
  assert.throws(() => new WebPubSubServiceClient(`Endpoint=http://${address}`, 'hub'), TypeError);
});

test('hubs are apart, and their names are the same in any case', async () => {
  const [one, two] = [stage.hub(), stage.hub()];
  const [in1, in2] = [await one.socket(), await two.socket()];
  const loud = stage.serviceOf(one.name.toUpperCase());
  await loud.sendToAll('for one', PLAIN);
  const { url } = await loud.getClientAccessToken({ userId: 'ann' });
  const json = stage.client(url);
  await json.start();
  assert.equal(await one.service.connectionExists(json.id), true);
  assert.equal(await two.service.connectionExists(json.id), false);
  await one.got([in1, text('for one')], [json]);
  await two.got([in2]);
});

/** Every call of the library that makes a request, with arguments of the right kind. */
const calls = {
  sendToAll: (client) => client.sendToAll('x'),
  sendToUser: (client) => client.sendToUser('ann', 'x'),
  sendToConnection: (client, id) => client.sendToConnection(id, 'x'),
  connectionExists: (client, id) => client.connectionExists(id),
  groupExists: (client) => client.groupExists('g'),
  userExists: (client) => client.userExists('ann'),
  closeConnection: (client, id) => client.closeConnection(id),
  closeAllConnections: (client) => client.closeAllConnections(),
  closeUserConnections: (client) => client.closeUserConnections('ann'),
  removeUserFromAllGroups: (client) => client.removeUserFromAllGroups('ann'),
  removeConnectionFromAllGroups: (client, id) => client.removeConnectionFromAllGroups(id),
  addConnectionsToGroups: (client) => client.addConnectionsToGroups(['other'], ''),
  removeConnectionsFromGroups: (client) => client.removeConnectionsFromGroups(['g'], ''),
  grantPermission: (client, id) => client.grantPermission(id, 'sendToGroup', { targetName: 'g' }),
  revokePermission: (client, id) => client.revokePermission(id, 'sendToGroup', { targetName: 'g' }),
  hasPermission: (client, id) => client.hasPermission(id, 'sendToGroup', { targetName: 'g' }),
  'group.addConnection': (client, id) => client.group('other').addConnection(id),
  'group.removeConnection': (client, id) => client.group('g').removeConnection(id),
  'group.closeAllConnections': (client) => client.group('g').closeAllConnections(),
  'group.addUser': (client) => client.group('other').addUser('ann'),
  'group.removeUser': (client) => client.group('g').removeUser('ann'),
  'group.sendToAll': (client) => client.group('g').sendToAll('x'),
  'group.listConnections': async (client) => (await client.group('g').listConnections()).next(),
};

test('this file knows every call of the library', () => {
  const methodsOf = (object) => {
    const prototype = Object.getPrototypeOf(object);
    return Object.getOwnPropertyNames(prototype).filter((name) => name !== 'constructor');
  };
  const { service } = stage.hub();
  const known = [
    ...methodsOf(service).filter((name) => name !== 'group' && name !== 'getClientAccessToken'),
    ...methodsOf(service.group('g')).map((name) => `group.${name}`),
  ];
  assert.deepEqual(Object.keys(calls).sort(), known.sort());
});

for (const [name, call] of Object.entries(calls)) {
  test(`${name} with a wrong key is refused and changes nothing`, async () => {
    const hub = stage.hub();
    const socket = await hub.socket({ userId: 'ann', groups: ['g'] });
    const [{ connectionId }] = await members(hub, 'g');
    const thief = new WebPubSubServiceClient(`http://${address}`, new AzureKeyCredential('x'.repeat(44)), hub.name, INSECURE);
    await assert.rejects(call(thief, connectionId), (error) => {
      assert.equal(error.name, 'RestError');
      assert.equal(error.statusCode, 401);
      return true;
    });
    assert.equal(await hub.service.groupExists('other'), false);
    assert.equal(await hub.service.hasPermission(connectionId, 'sendToGroup', { targetName: 'g' }), false);
    assert.deepEqual(await members(hub, 'g'), [{ connectionId, userId: 'ann' }]);
    await hub.got([socket]);
  });
}

async function members(hub, group) {
  const found = [];
  for await (const member of await hub.service.group(group).listConnections()) found.push(member);
  return found;
}

test('a token for clients names the user, and without one nobody', async () => {
  const hub = stage.hub();
  for (const userId of ['ann', 'Änn/é +&?#%41 🎉', 'x'.repeat(500)]) {
    const client = await hub.client({ userId });
    assert.equal(client.user, userId);
    assert.equal(await hub.service.userExists(userId), true);
  }
  const nobody = await hub.client();
  assert.ok(!nobody.user);
  assert.equal(await hub.service.connectionExists(nobody.id), true);
});

test('groups in a token are joined at once, and need no roles', async () => {
  const hub = stage.hub();
  const groups = ['a', 'Räume / 1?&', 'x'.repeat(1024)];
  const client = await hub.client({ groups });
  for (const group of groups) await hub.service.group(group).sendToAll(`to ${group}`, PLAIN);
  await hub.service.group('b').sendToAll('to b', PLAIN);
  const messages = groups.map((group) => ({ from: 'group', group, dataType: 'text', data: `to ${group}` }));
  await hub.got([client, ...messages]);
});

test('roles in a token are rights, and without any there are none', async () => {
  const hub = stage.hub();
  const tries = async (roles) => {
    const client = await hub.client({ userId: 'ann', roles });
    const outcome = (promise) => promise.then(() => true, (error) => error.errorDetail.name);
    return [
      await outcome(client.sdk.joinGroup('a')),
      await outcome(client.sdk.joinGroup('b')),
      await outcome(client.sdk.sendToGroup('a', 'x', 'text')),
      await outcome(client.sdk.sendToGroup('b', 'x', 'text')),
    ];
  };
  const no = 'Forbidden';
  assert.deepEqual(await tries(undefined), [no, no, no, no]);
  assert.deepEqual(await tries([]), [no, no, no, no]);
  assert.deepEqual(await tries(ALL_ROLES), [true, true, true, true]);
  assert.deepEqual(await tries(['webpubsub.joinLeaveGroup']), [true, true, no, no]);
  assert.deepEqual(await tries(['webpubsub.sendToGroup']), [no, no, true, true]);
  assert.deepEqual(await tries(['webpubsub.joinLeaveGroup.a', 'webpubsub.sendToGroup.b']), [true, no, no, true]);
  assert.deepEqual(await tries(['webpubsub.joinLeaveGroups.?', 'webpubsub.sendToGroups.b*']), [true, true, no, true]);
  assert.deepEqual(await tries(['something.else', 'webpubsub.joinLeaveGroup.A']), [no, no, no, no]);
});

test('a token lasts as long as it was made for', async () => {
  const hub = stage.hub();
  const lifetime = async (grant) => {
    const { exp, iat } = jwt.decode((await hub.service.getClientAccessToken(grant)).token);
    return (exp - iat) / 60;
  };
  assert.equal(await lifetime(), 60);
  assert.equal(await lifetime({ expirationTimeInMinutes: 5 }), 5);
  await hub.socket({ expirationTimeInMinutes: 1 });
  // Longer ago than any clock may be wrong.
  const { status } = await refusal(await hub.url({ expirationTimeInMinutes: -10 }));
  assert.equal(status, 401);
});

test('a token says where it is good, and is good nowhere else', async () => {
  const hub = stage.hub();
  const paths = { default: 'client', mqtt: 'clients/mqtt', socketio: 'clients/socketio' };
  for (const [clientProtocol, path] of Object.entries(paths)) {
    const { baseUrl, token, url } = await hub.service.getClientAccessToken({ clientProtocol });
    assert.equal(baseUrl, `ws://${address}/${path}/hubs/${hub.name}`);
    assert.equal(url, `${baseUrl}?access_token=${token}`);
    assert.equal(jwt.verify(token, PRIMARY_KEY).aud, baseUrl.replace(/^ws/, 'http'));
  }
  const { baseUrl } = await hub.service.getClientAccessToken();
  for (const clientProtocol of ['mqtt', 'socketio']) {
    const { token } = await hub.service.getClientAccessToken({ clientProtocol });
    assert.equal((await refusal(`${baseUrl}?access_token=${token}`)).status, 401);
  }
  const { token } = await stage.hub().service.getClientAccessToken();
  assert.equal((await refusal(`${baseUrl}?access_token=${token}`)).status, 401);
  assert.equal((await refusal(baseUrl)).status, 401);
  assert.equal((await refusal(`${baseUrl}?access_token=${token.slice(0, -3)}`)).status, 401);
});

test('names that no hub and no group can have are refused at every door', async () => {
  for (const name of ['9lives', 'a-b', 'a b', 'ä', 'x'.repeat(129)]) {
    const service = stage.serviceOf(name);
    await assert.rejects(service.sendToAll('x'), { statusCode: 400 }, name);
    const { url } = await service.getClientAccessToken();
    assert.equal((await refusal(url)).status, 400, name);
  }
  const hub = stage.hub();
  const { id } = await hub.client();
  for (const name of [' ', 'x'.repeat(1025)]) {
    const group = hub.service.group(name);
    await assert.rejects(group.sendToAll('x'), { statusCode: 400 });
    await assert.rejects(group.addConnection(id), { statusCode: 400 });
    await assert.rejects(group.closeAllConnections(), { statusCode: 400 });
    await assert.rejects(hub.service.groupExists(name), { statusCode: 400 });
    assert.equal((await refusal(await hub.url({ groups: [name] }))).status, 400, JSON.stringify(name));
  }
});

test('the odata helper writes filters that the service reads', async () => {
  const hub = stage.hub();
  const people = ["vic's", 'vic', "'", null];
  const sockets = [];
  for (const userId of people) sockets.push(await hub.socket({ ...(userId && { userId }), groups: [`of ${userId}`] }));
  for (const who of people) {
    await hub.service.sendToAll(`user ${who}`, { ...PLAIN, filter: odata`userId eq ${who}` });
    await hub.service.sendToAll(`group ${who}`, { ...PLAIN, filter: odata`${`of ${who}`} in groups` });
  }
  const [length, prefix] = [3, 'vi'];
  const filter = odata`startswith(userId, ${prefix}) and length(userId) gt ${length}`;
  await hub.service.sendToAll('long', { ...PLAIN, filter });
  await hub.service.sendToAll('all', { ...PLAIN, filter: odata`not (userId eq null) or ${true}` });
  const expected = (who, ...more) => [`user ${who}`, `group ${who}`, ...more, 'all'].map(text);
  await hub.got(
    [sockets[0], ...expected("vic's", 'long')],
    [sockets[1], ...expected('vic')],
    [sockets[2], ...expected("'")],
    [sockets[3], ...expected('null')],
  );
});

test('a request that is given up before it is sent does nothing', async () => {
  const hub = stage.hub();
  const socket = await hub.socket();
  const abortSignal = AbortSignal.abort();
  await assert.rejects(hub.service.sendToAll('no', { ...PLAIN, abortSignal }), { name: 'AbortError' });
  await hub.got([socket]);
});
