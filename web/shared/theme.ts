/** Light or dark: what the system says, unless somebody chose. The choice is remembered and shared by all tabs. */

import { ref, watch } from 'vue'
import { read, write } from './storage'

export type Theme = 'system' | 'light' | 'dark'

const KEY = 'hookwire.theme'

export const theme = ref<Theme>(parse(read(localStorage, KEY)))

watch(
  theme,
  (chosen) => {
    if (chosen === 'system') {
      delete document.documentElement.dataset.theme
    } else {
      document.documentElement.dataset.theme = chosen
    }
    write(localStorage, KEY, chosen === 'system' ? null : chosen)
  },
  { immediate: true },
)

addEventListener('storage', ({ key, newValue }) => {
  if (key === KEY) {
    theme.value = parse(newValue)
  }
})

function parse(text: string | null): Theme {
  return text === 'light' || text === 'dark' ? text : 'system'
}
