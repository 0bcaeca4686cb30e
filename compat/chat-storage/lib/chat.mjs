/** Instances of the chat's functions, and the service that calls them: here it is the test that does. */
import { createHash, createHmac } from 'node:crypto';

import { PRIMARY_KEY, binaryPath } from '../../js/lib/service.mjs';
import { Process } from './processes.mjs';

/** Where the objects of a conversation lie. */
export function folderOf(conversation) {
  return `conversations/${createHash('sha256').update(conversation).digest('hex')}`;
}

/** The function could not be asked, or said that it is worth to try again. */
export class Unavailable extends Error {}

export class Chat {
  #process;
  #url;
  #number = 0;

  /**
   * Starts an instance.
   * @param service the connection string of the service that gets the pushes
   */
  static async start(service, { words, environment }) {
    const chat = new Chat();
    chat.#process = await Process.start(binaryPath(), ['chat', '--listen', '127.0.0.1:0', '--json', ...words], {
      environment: { ...environment, AzureSignalRConnectionString: service, HOOKWIRE_LOG: 'info' },
      ready: (line) => JSON.parse(line).chat_url,
    });
    chat.#url = chat.#process.ready;
    return chat;
  }

  get log() {
    return this.#process.log;
  }

  /**
   * Carries a frame of `user` to the functions, signed as the service signs, and returns the frame that answers.
   * @throws {Unavailable} when there is no answer, or one that asks to try again
   */
  async ask(user, operation) {
    this.#number += 1;
    const re = this.#number;
    const connection = `${user} ${re}`;
    let answer;
    try {
      const response = await fetch(`${this.#url}api/message`, {
        method: 'POST',
        headers: {
          'Content-Type': 'text/plain',
          'X-ASRS-Connection-Id': connection,
          'X-ASRS-Hub': 'chat',
          'X-ASRS-Category': 'messages',
          'X-ASRS-Event': 'message',
          'X-ASRS-User-Id': user,
          'X-ASRS-Signature': `sha256=${createHmac('sha256', PRIMARY_KEY).update(connection).digest('hex')}`,
        },
        body: JSON.stringify({ re, ...operation }),
      });
      answer = await response.json();
    } catch (error) {
      throw new Unavailable('no answer', { cause: error });
    }
    if (answer.code === 'unavailable') throw new Unavailable(answer.message);
    if (answer.type !== 'ok' || answer.re !== re) throw new Error(`${operation.op} was answered with ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Makes a request to the functions, as a browser does. */
  async fetch(path, options) {
    return fetch(new URL(path, this.#url), options);
  }

  /** Returns all messages of a conversation, read page by page. */
  async history(user, conversation) {
    const messages = [];
    for (;;) {
      const after = messages.at(-1)?.seq ?? 0;
      const page = await this.ask(user, { op: 'open', conversation, after, limit: 100 });
      messages.push(...page.messages);
      if (!page.more) return messages;
    }
  }

  /** Ends the process so that it notices nothing. */
  async kill() {
    await this.#process.end('SIGKILL');
  }

  /** Ends it as an operator does and returns how it ended. */
  async stop() {
    return this.#process.end('SIGTERM');
  }
}
