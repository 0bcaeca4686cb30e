/** What a client of Web PubSub says, whatever the subprotocol. */

export interface Data {
  readonly dataType: 'text' | 'json' | 'binary'
  /** The text, the JSON text, or bytes as base64. */
  readonly data: string
}

export type ClientMessage =
  | { readonly type: 'joinGroup' | 'leaveGroup'; readonly group: string; readonly ackId: number }
  | ({ readonly type: 'sendToGroup'; readonly group: string; readonly noEcho: boolean; readonly ackId: number } & Data)
  | ({ readonly type: 'event'; readonly event: string; readonly ackId: number } & Data)
  | { readonly type: 'sequenceAck'; readonly sequenceId: number }
  | { readonly type: 'ping' }

/** Returns a message as a frame of the JSON subprotocols. JSON data stay as they were typed, long numbers included. */
export function jsonFrame(message: ClientMessage): string {
  if (!('dataType' in message) || message.dataType !== 'json') {
    return JSON.stringify(message)
  }
  const { data, ...rest } = message
  return `${JSON.stringify(rest).slice(0, -1)},"data":${data.trim()}}`
}

/** Returns why data cannot be sent, if they cannot. */
export function dataFault({ dataType, data }: Data): string | undefined {
  if (dataType === 'json') {
    return jsonFault(data)
  }
  return dataType === 'binary' && !isBase64(data) ? 'This is not base64.' : undefined
}

export function jsonFault(text: string): string | undefined {
  try {
    JSON.parse(text)
    return undefined
  } catch (error) {
    return `This is not JSON: ${(error as Error).message}.`
  }
}

function isBase64(text: string): boolean {
  try {
    atob(text)
    return true
  } catch {
    return false
  }
}
