/** Which page the address names: `#/hubs/chat/groups/staff`. The browser's back button works, and an address can be kept. */

import { ref } from 'vue'

/** The names of the address, each unescaped. */
export const route = ref(parse(location.hash))

addEventListener('hashchange', () => {
  route.value = parse(location.hash)
})

/** Returns an address: of `href`/hubs/${hub}`` only the literal slashes divide. */
export function href(parts: TemplateStringsArray, ...names: readonly string[]): string {
  return `#${String.raw({ raw: parts }, ...names.map(encodeURIComponent))}`
}

export function goTo(address: string): void {
  location.hash = address
}

function parse(hash: string): readonly string[] {
  try {
    return hash.replace(/^#?\/?/u, '').split('/').filter((part) => part !== '').map(decodeURIComponent)
  } catch {
    // Somebody has cut the address within an escape.
    return []
  }
}
