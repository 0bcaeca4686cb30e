/** The official client, with everything that it reports in mailboxes. */
import { WebPubSubClient } from '@azure/web-pubsub-client';

import { Mailbox, within } from '../../js/lib/mailbox.mjs';

/** Returns a message that a hub, a user or a connection was sent, as {@link Client.next} gives it. */
export const fromServer = (dataType, data) => ({ from: 'server', dataType, data });

/** Returns a message of a group; `user` is the sender's, if it has one. */
export const fromGroup = (group, dataType, data, user) => ({
  from: 'group',
  group,
  ...(user !== undefined && { fromUserId: user }),
  dataType,
  data,
});

/** Returns the bytes of a text or a list as the client takes and gives binary data. */
export function arrayBuffer(content) {
  const bytes = Buffer.from(content);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

/** A subprotocol that does what another one does and lets a test see the messages that the official client keeps to itself. */
export class Observed {
  #protocol;
  #boxes = new Map();

  constructor(protocol) {
    this.#protocol = protocol;
  }

  get name() {
    return this.#protocol.name;
  }

  get isReliableSubProtocol() {
    return this.#protocol.isReliableSubProtocol;
  }

  /** Returns the mailbox of all messages of this kind, sent or received from now on. */
  of(kind) {
    if (!this.#boxes.has(kind)) this.#boxes.set(kind, new Mailbox(`a message of kind ${kind}`));
    return this.#boxes.get(kind);
  }

  writeMessage(message) {
    this.#boxes.get(message.kind)?.put(message);
    return this.#protocol.writeMessage(message);
  }

  parseMessages(input) {
    const message = this.#protocol.parseMessages(input);
    this.#boxes.get(message?.kind)?.put(message);
    return message;
  }
}

export class Client {
  connects = new Mailbox('the connected event of a client');
  disconnects = new Mailbox('the disconnected event of a client');
  stops = new Mailbox('the stopped event of a client');
  rejoinFailures = new Mailbox('the rejoin-group-failed event of a client');
  /** The sequence ids of all messages so far, in the order of their arrival. */
  sequenceIds = [];
  #messages = new Mailbox('a message to a client');
  #isRunning = false;

  /** Starts a client and waits until it is connected. */
  static async start(credential, options) {
    const client = new Client(credential, options);
    await client.start();
    return client;
  }

  /**
   * @param credential a client URL, or an object that gives one
   * @param options those of the official client. Its own timers and its repeating of failed requests are off unless a test asks
   *   for them.
   */
  constructor(credential, options = {}) {
    this.sdk = new WebPubSubClient(credential, {
      keepAliveIntervalInMs: 0,
      keepAliveTimeoutInMs: 0,
      messageRetryOptions: { maxRetries: 0 },
      ...options,
    });
    this.sdk.on('connected', (event) => this.connects.put(event));
    this.sdk.on('disconnected', (event) => this.disconnects.put(event));
    this.sdk.on('stopped', () => {
      this.#isRunning = false;
      this.stops.put({});
    });
    this.sdk.on('rejoin-group-failed', (event) => this.rejoinFailures.put(event));
    this.sdk.on('server-message', ({ message }) => this.#take('server', message));
    this.sdk.on('group-message', ({ message }) => this.#take('group', message));
  }

  /** Starts and waits for the connected event, which it returns. */
  async start() {
    this.#isRunning = true;
    try {
      await within(this.sdk.start(), 'the start of a client');
    } catch (error) {
      this.#isRunning = false;
      throw error;
    }
    return this.connected();
  }

  /** Waits for the next connected event: after a start, or when the client has made itself a new connection. */
  async connected() {
    const event = await this.connects.next();
    this.id = event.connectionId;
    this.user = event.userId;
    return event;
  }

  /** Stops and waits until that is done. */
  async stop() {
    if (!this.#isRunning) return;
    this.sdk.stop();
    await this.stops.next();
  }

  async next() {
    return this.#messages.next();
  }

  /** Messages that have arrived and were not awaited. */
  get untaken() {
    return this.#messages.untaken;
  }

  #take(from, { group, fromUserId, dataType, data, sequenceId }) {
    if (sequenceId !== undefined) this.sequenceIds.push(sequenceId);
    const content = data instanceof ArrayBuffer ? Buffer.from(data) : data;
    this.#messages.put(
      from === 'group' ? fromGroup(group, dataType, content, fromUserId) : fromServer(dataType, content),
    );
  }
}
