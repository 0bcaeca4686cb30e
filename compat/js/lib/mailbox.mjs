/** Things that happen, in their order, for whoever waits for them. */

/** How long anything may take before a test fails. Generous: the machine may be busy. */
export const DEADLINE_MS = 20_000;

/** Returns what `promise` brings; fails when that takes longer than the deadline. */
export async function within(promise, what, limitMs = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing within ${limitMs} ms`)), limitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Asks again until `question` gives a true value, and returns that; fails after the deadline. */
export async function eventually(question, what, limitMs = DEADLINE_MS) {
  const end = performance.now() + limitMs;
  for (;;) {
    const answer = await question();
    if (answer) return answer;
    if (end < performance.now()) throw new Error(`${what}: not so within ${limitMs} ms`);
    await new Promise(setImmediate); // A question that needs no waiting leaves room for what is asked about.
  }
}

/** Returns a promise with the function that fulfils it. */
export function deferred() {
  let resolve;
  const promise = new Promise((fulfil) => {
    resolve = fulfil;
  });
  return { promise, resolve };
}

export class Mailbox {
  #items = [];
  #readers = [];
  #what;

  /** @param what what is delivered here, for the message of a failure */
  constructor(what) {
    this.#what = what;
  }

  put(item) {
    const reader = this.#readers.shift();
    if (reader) reader(item);
    else this.#items.push(item);
  }

  /** Returns the oldest item that nobody has taken, or waits for the next one. */
  async next() {
    if (0 < this.#items.length) return this.#items.shift();
    let reader;
    const item = new Promise((resolve) => {
      reader = resolve;
      this.#readers.push(reader);
    });
    try {
      return await within(item, this.#what);
    } finally {
      this.#readers = this.#readers.filter((other) => other !== reader);
    }
  }

  /** Returns what nobody has taken yet. */
  get untaken() {
    return [...this.#items];
  }
}
