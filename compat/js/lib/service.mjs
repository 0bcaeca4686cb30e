/** The service under test: the binary named by `HOOKWIRE_BIN`, started with a configuration file of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';

import { within } from './mailbox.mjs';

export const PRIMARY_KEY = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH';
export const SECONDARY_KEY = 'hgfedcba9876543210zyxwvutsrqponmlkjihgfedcba';

/** Bytes of the service's log that are kept for the message of a failure. */
const LOG_BYTES_MAX = 64 * 1024;

/** What still runs when this process ends is ended with it, also when the test runner ends it for taking too long. */
const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(name, () => process.exit(1));

// Nothing here may leave this machine, whatever proxy the machine is set up with.
process.env.NO_PROXY = '*';

/** Returns the path of the binary. */
export function binaryPath() {
  const binary = process.env.HOOKWIRE_BIN;
  if (!binary) throw new Error('set HOOKWIRE_BIN to the path of the hookwire binary (cargo build --bin hookwire)');
  try {
    accessSync(binary, constants.X_OK);
  } catch {
    throw new Error(`HOOKWIRE_BIN names ${binary}, which is not there or cannot be executed`);
  }
  return path.resolve(binary);
}

export class Service {
  #child;
  #folder;
  #log = '';
  #exited;

  /**
   * Starts the binary and waits until it is ready.
   * @param options `template`: where events go; `folder`: that of an earlier service, for a restart;
   *   `configuration`: further TOML, top-level keys not allowed
   */
  static async start({ template, folder, configuration = '' } = {}) {
    const service = new Service();
    service.#folder = folder ?? (await mkdtemp(path.join(tmpdir(), 'hookwire-compat-')));
    const file = path.join(service.#folder, 'hookwire.toml');
    const lines = [
      'listen = ["127.0.0.1:0"]',
      `access_keys = ${JSON.stringify([PRIMARY_KEY, SECONDARY_KEY])}`,
      `data_dir = ${JSON.stringify(path.join(service.#folder, 'data'))}`,
      ...(template ? ['[[upstream.template]]', `url_template = ${JSON.stringify(template)}`] : []),
      configuration,
    ];
    await writeFile(file, `${lines.join('\n')}\n`);
    await service.#spawn(file);
    return service;
  }

  async #spawn(file) {
    // Variables with this prefix are settings of the service.
    const environment = Object.entries(process.env).filter(([name]) => !name.startsWith('HOOKWIRE_'));
    this.#child = spawn(binaryPath(), ['serve', '--config', file, '--json'], {
      env: { ...Object.fromEntries(environment), HOOKWIRE_LOG: 'debug,hyper_util=info' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(this.#child);
    this.#exited = once(this.#child, 'exit').then(([code, signal]) => {
      running.delete(this.#child);
      return { code, signal };
    });
    this.#child.stderr.on('data', (data) => {
      this.#log = (this.#log + data).slice(-LOG_BYTES_MAX);
    });
    const lines = readline.createInterface({ input: this.#child.stdout });
    const announced = once(lines, 'line').then(([line]) => JSON.parse(line));
    const failed = this.#exited.then(({ code, signal }) => {
      throw new Error(`the service ended (${code ?? signal}) before it was ready:\n${this.#log}`);
    });
    const ready = await within(Promise.race([announced, failed]), 'the start of the service');
    // From here on an exit is looked at by whoever asks for it.
    failed.catch(() => {});
    [this.address] = ready.listen;
    this.connectionString = ready.connection_string;
  }

  get url() {
    return `http://${this.address}`;
  }

  get folder() {
    return this.#folder;
  }

  /** The end of the service's log. */
  get log() {
    return this.#log;
  }

  signal(name) {
    this.#child.kill(name);
  }

  get isRunning() {
    return running.has(this.#child);
  }

  /** Waits for the process to end; returns its code, or the signal that ended it. */
  async exit() {
    return within(this.#exited, 'the end of the service', 40_000);
  }

  /** Ends the service as an operator does and returns how that went. */
  async stop() {
    this.signal('SIGTERM');
    return this.exit();
  }

  /** Leaves nothing behind, however it went: no process, no folder. */
  async clear() {
    if (this.isRunning) {
      this.signal('SIGKILL');
      await this.exit();
    }
    await rm(this.#folder, { recursive: true, force: true });
  }
}
