/** Finds the web addresses in a message. Everything else stays text: nothing in a message is ever markup. */

export interface Piece {
  readonly text: string
  /** Present for an address that may be opened. */
  readonly href?: string
}

const ADDRESS = /\bhttps?:\/\/[^\s<>"'`]+/giu
const PAIRS: Readonly<Record<string, string>> = { ')': '(', ']': '[', '}': '{' }

/** Returns the text in pieces, in order; joined they are the text again. */
export function pieces(text: string): Piece[] {
  const found: Piece[] = []
  let done = 0
  for (const match of text.matchAll(ADDRESS)) {
    const address = withoutTail(match[0])
    if (!URL.canParse(address)) {
      continue
    }
    if (done < match.index) {
      found.push({ text: text.slice(done, match.index) })
    }
    found.push({ text: address, href: new URL(address).href })
    done = match.index + address.length
  }
  if (done < text.length) {
    found.push({ text: text.slice(done) })
  }
  return found
}

/** An address without the punctuation of the sentence that it ends, and without a bracket that it does not open. */
function withoutTail(address: string): string {
  let end = address.length
  for (;;) {
    const last = address[end - 1] ?? ''
    const opening = PAIRS[last]
    const kept = address.slice(0, end)
    const unopened = opening !== undefined && kept.split(opening).length < kept.split(last).length
    if (!unopened && !/[.,;:!?…]/u.test(last)) {
      return kept
    }
    end -= 1
  }
}
