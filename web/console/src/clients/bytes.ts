/** Bytes as people read them. */

export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
}

export function toBase64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
}

/** Bytes in a row: they fit on a phone. */
const ROW_BYTES = 8

/** Returns rows of bytes in hexadecimal, with the characters they are. At most `bytesMax`; says how many there are more. */
export function hexDump(bytes: Uint8Array, bytesMax: number): string {
  const rows: string[] = []
  for (let start = 0; start < Math.min(bytes.length, bytesMax); start += ROW_BYTES) {
    const row = Array.from(bytes.subarray(start, Math.min(start + ROW_BYTES, bytesMax)))
    const digits = row.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
    const characters = row.map((byte) => (0x20 <= byte && byte < 0x7f ? String.fromCharCode(byte) : '·')).join('')
    rows.push(`${start.toString(16).padStart(4, '0')}  ${digits.padEnd(3 * ROW_BYTES - 1)}  ${characters}`)
  }
  if (bytesMax < bytes.length) {
    rows.push(`… and ${bytes.length - bytesMax} bytes more`)
  }
  return rows.join('\n')
}

/** Returns the text that bytes are, if they are UTF-8. */
export function asText(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return undefined
  }
}
