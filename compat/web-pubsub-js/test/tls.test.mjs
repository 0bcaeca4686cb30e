// `hookwire dev --tls`: the official libraries by https and wss, with nothing but the authority of the data folder to trust.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { within } from '../../js/lib/mailbox.mjs';
import { binaryPath } from '../../js/lib/service.mjs';

const PEER = fileURLToPath(new URL('../lib/tls-peer.mjs', import.meta.url));

const folder = await mkdtemp(path.join(tmpdir(), 'hookwire-compat-'));
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('HOOKWIRE_') && name !== 'NODE_EXTRA_CA_CERTS'),
);
const places = ['--listen', '127.0.0.1:0', '--chat-listen', '127.0.0.1:0', '--data', path.join(folder, 'data')];
const service = spawn(binaryPath(), ['dev', '--tls', '--dialect', 'web-pubsub', '--json', ...places], {
  env: environment,
  stdio: ['ignore', 'pipe', 'ignore'],
});
const exited = once(service, 'exit');
after(async () => {
  service.kill('SIGTERM');
  const [code] = await within(exited, 'the end of the service', 40_000);
  await rm(folder, { recursive: true, force: true });
  assert.equal(code, 0);
});
const [line] = await within(once(readline.createInterface({ input: service.stdout }), 'line'), 'the start of the service');
const ready = JSON.parse(line);

/** Runs the program with further variables; returns its exit code and what it wrote. */
async function run(variables) {
  const program = spawn(process.execPath, [PEER], {
    env: { ...environment, WebPubSubConnectionString: ready.connection_string, CHAT_URL: ready.chat_url, ...variables },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [program.stdout, program.stderr]) stream.on('data', (data) => (output += data));
  const [code] = await within(once(program, 'close'), 'the end of the program', 60_000);
  return { code, output };
}

test('the official libraries work by https and wss when they trust the authority', async () => {
  assert.match(ready.chat_url, /^https:/u);
  assert.match(ready.client_url, /^wss:/u);
  const { code, output } = await run({ NODE_EXTRA_CA_CERTS: ready.ca_file });
  assert.equal(code, 0, output);
});

test('they refuse to when they do not', async () => {
  const { code, output } = await run({});
  assert.notEqual(code, 0);
  assert.match(output, /unable to verify|self.signed|local issuer/iu);
});
