/** Programs that a test starts: none outlives it, and what they said last is kept for the message of a failure. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import readline from 'node:readline';

import { within } from '../../js/lib/mailbox.mjs';

/** Bytes of a program's log that are kept. */
const LOG_BYTES_MAX = 64 * 1024;

const running = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Process {
  #child;
  #exited;
  log = '';

  /**
   * Starts a program and waits for the line on its standard output that says it is ready.
   * @param ready returns something true for that line
   */
  static async start(program, words, { environment = {}, ready }) {
    const self = new Process();
    // Variables of whoever runs the tests must not decide what is tested.
    const inherited = Object.entries(process.env).filter(([name]) => !/^(HOOKWIRE_|Azure|AZURE_|AWS_|GOOGLE_|WebPubSub)/.test(name));
    self.#child = spawn(program, words, {
      env: { ...Object.fromEntries(inherited), ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    running.add(self.#child);
    self.#exited = once(self.#child, 'exit').then(([code, signal]) => {
      running.delete(self.#child);
      return { code, signal };
    });
    const keep = (data) => {
      self.log = (self.log + data).slice(-LOG_BYTES_MAX);
    };
    self.#child.stderr.on('data', keep);
    const announced = new Promise((resolve) => {
      readline.createInterface({ input: self.#child.stdout }).on('line', (line) => {
        keep(`${line}\n`);
        const found = ready(line);
        if (found) resolve(found);
      });
    });
    const failed = self.#exited.then(({ code, signal }) => {
      throw new Error(`${program} ended (${code ?? signal}) before it was ready:\n${self.log}`);
    });
    self.ready = await within(Promise.race([announced, failed]), `the start of ${program}`);
    failed.catch(() => {});
    return self;
  }

  /** Ends the program as `signal` does and returns how it ended. */
  async end(signal) {
    if (running.has(this.#child)) this.#child.kill(signal);
    return within(this.#exited, 'the end of a program', 60_000);
  }
}
