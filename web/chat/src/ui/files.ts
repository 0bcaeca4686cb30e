/** Files, as people see them. */

import type { FileInfo } from '../client/wire'

/** Media types that the functions give out as pictures. */
const PICTURES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp']

export function isPicture({ type }: FileInfo): boolean {
  return PICTURES.includes(type)
}

/** Returns a size as people say it: “812 B”, “47 kB”, “2.4 MB”. */
export function sizeText(bytes: number): string {
  if (bytes < 1_000) {
    return `${bytes} B`
  }
  const kilobytes = Math.round(bytes / 1_000)
  return kilobytes < 1_000 ? `${kilobytes} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`
}
