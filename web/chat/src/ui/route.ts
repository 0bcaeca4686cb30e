/** Which conversation the address names: `#/<id>`. The browser's back button works, and an address can be kept. */

import { ref } from 'vue'

/** The conversation of the address, or undefined. */
export const route = ref(parse(location.hash))

addEventListener('hashchange', () => {
  route.value = parse(location.hash)
})

export function href(id: string): string {
  return `#/${encodeURIComponent(id)}`
}

export function goTo(id: string): void {
  location.hash = href(id)
}

/** Leaves the conversation, for the list on a narrow screen. */
export function goBack(): void {
  history.replaceState(null, '', location.pathname + location.search)
  route.value = undefined
}

function parse(hash: string): string | undefined {
  if (!hash.startsWith('#/') || hash.length < 3) {
    return undefined
  }
  try {
    return decodeURIComponent(hash.slice(2))
  } catch {
    return undefined
  }
}
