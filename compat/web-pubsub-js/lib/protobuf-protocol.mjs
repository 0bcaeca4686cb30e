/**
 * The protobuf subprotocols for the official client, which has only the JSON ones: it takes any object that reads and writes its
 * messages. Fields and numbers are those of the notes on the protocol; the bytes are made and read by protobuf.js.
 */
import protobuf from 'protobufjs';

/**
 * Returns a message of fields; with `choice` that is the name of the one-of which all of them belong to. Optional fields are not
 * told from others: nothing that is sent or looked at here may be zero.
 */
function message(fields, choice) {
  const entries = Object.entries(fields).map(([name, [id, type]]) => [name, { id, type }]);
  const oneofs = choice && { [choice]: { oneof: Object.keys(fields) } };
  return { fields: Object.fromEntries(entries), ...(oneofs && { oneofs }) };
}

const root = protobuf.Root.fromJSON({
  nested: {
    Upstream: message(
      {
        sendToGroup: [1, 'SendToGroup'],
        event: [5, 'Event'],
        joinGroup: [6, 'Membership'],
        leaveGroup: [7, 'Membership'],
        sequenceAck: [8, 'SequenceAck'],
        ping: [9, 'Nothing'],
        streamData: [13, 'StreamData'],
        streamEnd: [14, 'StreamEnd'],
      },
      'message',
    ),
    SendToGroup: message({
      group: [1, 'string'],
      ackId: [2, 'uint64'],
      data: [3, 'Data'],
      noEcho: [4, 'bool'],
      stream: [7, 'StreamStart'],
    }),
    StreamStart: message({ streamId: [1, 'string'], idleTimeoutMs: [2, 'uint32'] }),
    Event: message({ event: [1, 'string'], data: [2, 'Data'], ackId: [3, 'uint64'] }),
    Membership: message({ group: [1, 'string'], ackId: [2, 'uint64'] }),
    SequenceAck: message({ sequenceId: [1, 'uint64'] }),
    StreamData: message({ streamId: [1, 'string'], streamSequenceId: [2, 'uint64'], data: [3, 'Data'] }),
    StreamEnd: message({ streamId: [1, 'string'], error: [2, 'StreamEndError'] }),
    StreamEndError: message({ message: [1, 'string'], userErrorCode: [2, 'string'] }),
    Nothing: message({}),
    Data: message({ text: [1, 'string'], binary: [2, 'bytes'], protobuf: [3, 'Any'], json: [4, 'string'] }, 'data'),
    Any: message({ typeUrl: [1, 'string'], value: [2, 'bytes'] }),
    Downstream: message(
      {
        ack: [1, 'Ack'],
        data: [2, 'DataMessage'],
        system: [3, 'System'],
        pong: [4, 'Nothing'],
        streamAck: [6, 'StreamAck'],
        streamNack: [7, 'StreamNack'],
        streamClosed: [8, 'StreamClosed'],
      },
      'message',
    ),
    Ack: message({ ackId: [1, 'uint64'], success: [2, 'bool'], error: [3, 'NamedError'] }),
    NamedError: message({ name: [1, 'string'], message: [2, 'string'] }),
    DataMessage: message({
      from: [1, 'string'],
      group: [2, 'string'],
      data: [3, 'Data'],
      sequenceId: [4, 'uint64'],
      stream: [6, 'Stream'],
    }),
    Stream: message({
      streamId: [1, 'string'],
      streamSequenceId: [2, 'uint64'],
      endOfStream: [3, 'bool'],
      error: [4, 'StreamError'],
    }),
    StreamError: message({ name: [1, 'string'], message: [2, 'string'], userErrorCode: [3, 'string'] }),
    System: message({ connected: [1, 'Connected'], disconnected: [2, 'Disconnected'] }, 'message'),
    Connected: message({ connectionId: [1, 'string'], userId: [2, 'string'], reconnectionToken: [3, 'string'] }),
    Disconnected: message({ reason: [2, 'string'] }),
    StreamAck: message({ streamId: [1, 'string'], expectedSequenceId: [2, 'uint64'] }),
    StreamNack: message({
      streamId: [1, 'string'],
      name: [2, 'string'],
      message: [3, 'string'],
      expectedSequenceId: [4, 'uint64'],
    }),
    StreamClosed: message({ streamId: [1, 'string'], error: [2, 'NamedError'] }),
  },
});

const [Upstream, Downstream, Any] = ['Upstream', 'Downstream', 'Any'].map((name) => root.lookupType(name));

/** Returns `protobuf.webpubsub.azure.v1`. */
export const protobufProtocol = () => protocol('protobuf.webpubsub.azure.v1', false);

/** Returns `protobuf.reliable.webpubsub.azure.v1`. */
export const protobufReliableProtocol = () => protocol('protobuf.reliable.webpubsub.azure.v1', true);

/** Returns the bytes of an Any, which is what the official client takes and gives as `protobuf`. */
export function any(typeUrl, value) {
  return toArrayBuffer(Any.encode({ typeUrl, value: Buffer.from(value) }).finish());
}

function protocol(name, isReliableSubProtocol) {
  return {
    name,
    isReliableSubProtocol,
    writeMessage: (sent) => toArrayBuffer(Upstream.encode(Upstream.fromObject(toUpstream(sent))).finish()),
    parseMessages(input) {
      if (!(input instanceof ArrayBuffer)) throw new TypeError('a protobuf connection has got a text frame');
      const parsed = Downstream.toObject(Downstream.decode(new Uint8Array(input)), { longs: Number, oneofs: true });
      return fromDownstream(parsed);
    },
  };
}

function toUpstream({ kind, dataType, data, ...rest }) {
  const content = dataType === undefined ? {} : { data: toData(dataType, data) };
  switch (kind) {
    case 'joinGroup':
    case 'leaveGroup':
    case 'sequenceAck':
    case 'streamEnd':
    case 'ping':
      return { [kind]: rest };
    case 'sendEvent':
      return { event: { ...rest, ...content } };
    case 'streamData':
      return { streamData: { ...rest, ...content } };
    case 'sendToGroup': {
      const { stream, ...others } = rest;
      const start = stream && { stream: { streamId: stream.streamId, idleTimeoutMs: stream.idleTimeoutInMs } };
      return { sendToGroup: { ...others, ...content, ...start } };
    }
    default:
      throw new TypeError(`${kind} has no protobuf form here`);
  }
}

function toData(dataType, data) {
  switch (dataType) {
    case 'text':
      return { text: data };
    case 'json':
      return { json: JSON.stringify(data) };
    case 'binary':
      return { binary: new Uint8Array(data) };
    case 'protobuf':
      return { protobuf: Any.decode(new Uint8Array(data)) };
    default:
      throw new TypeError(`${dataType} is no type of data`);
  }
}

function fromDownstream({ message: kind, ...parsed }) {
  const content = parsed[kind];
  switch (kind) {
    case 'data': {
      const { from, data, ...rest } = content;
      return { kind: from === 'group' ? 'groupData' : 'serverData', ...rest, ...fromData(data) };
    }
    case 'system':
      return content.message === 'connected'
        ? { kind: 'connected', ...content.connected }
        : { kind: 'disconnected', message: content.disconnected.reason };
    case undefined:
      return null;
    default:
      return { kind, ...content };
  }
}

function fromData(data) {
  switch (data.data) {
    case 'text':
      return { dataType: 'text', data: data.text };
    case 'json':
      return { dataType: 'json', data: JSON.parse(data.json) };
    case 'binary':
      return { dataType: 'binary', data: toArrayBuffer(data.binary) };
    default:
      return { dataType: 'protobuf', data: toArrayBuffer(Any.encode(Any.fromObject(data.protobuf)).finish()) };
  }
}

function toArrayBuffer(bytes) {
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}
