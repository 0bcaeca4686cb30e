/** Server-sent events from a response. `EventSource` cannot send the header by which the service knows its own page. */

export interface ServerSentEvent {
  readonly type: string
  readonly data: string
  readonly id: string | undefined
}

/** Longest line, in characters; a longer one is no event of the service. */
const LINE_CHARACTERS_MAX = 65_536

/** Takes the text of a stream in any pieces, and gives the events that are complete. */
export class EventReader {
  #rest = ''
  #type = ''
  #data: string[] = []
  #id: string | undefined

  read(piece: string): ServerSentEvent[] {
    const lines = (this.#rest + piece).split(/\r\n|\n|\r(?!$)/u)
    this.#rest = lines.pop() ?? ''
    if (LINE_CHARACTERS_MAX < this.#rest.length) {
      throw new Error('a line of the stream is too long')
    }
    return lines.flatMap((line) => this.#line(line))
  }

  #line(line: string): ServerSentEvent[] {
    if (line === '') {
      return this.#end()
    }
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /u, '')
    if (field === 'event') {
      this.#type = value
    } else if (field === 'data') {
      this.#data.push(value)
    } else if (field === 'id') {
      this.#id = value
    }
    return []
  }

  #end(): ServerSentEvent[] {
    const event = { type: this.#type === '' ? 'message' : this.#type, data: this.#data.join('\n'), id: this.#id }
    const complete = 0 < this.#data.length
    this.#type = ''
    this.#data = []
    return complete ? [event] : []
  }
}

/** Calls `listener` for each event until the stream ends. */
export async function readEvents(response: Response, listener: (event: ServerSentEvent) => void): Promise<void> {
  const stream = response.body?.pipeThrough(new TextDecoderStream()).getReader()
  const reader = new EventReader()
  for (;;) {
    const piece = await stream?.read()
    if (piece === undefined || piece.done) {
      return
    }
    for (const event of reader.read(piece.value)) {
      listener(event)
    }
  }
}
