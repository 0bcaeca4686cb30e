/** What kind of screen this is. */

import { type Ref, onScopeDispose, ref } from 'vue'

/** Whether list and conversation stand side by side. The same width is in the style sheets. */
export function useWide(): Ref<boolean> {
  return useMedia('(min-width: 48rem)')
}

/** Whether a keyboard is likely: focusing a text field does not cover the screen. */
export function useKeyboard(): Ref<boolean> {
  return useMedia('(hover: hover) and (pointer: fine)')
}

function useMedia(query: string): Ref<boolean> {
  const media = matchMedia(query)
  const matches = ref(media.matches)
  const changed = () => (matches.value = media.matches)
  media.addEventListener('change', changed)
  onScopeDispose(() => media.removeEventListener('change', changed))
  return matches
}
