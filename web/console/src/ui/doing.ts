/** Something that a person asked for: whether it is under way, and what came of it. */

import { type Ref, ref } from 'vue'
import { sentence } from '../api/words'

export interface Doing {
  readonly busy: Ref<boolean>
  /** What went wrong. */
  readonly fault: Ref<string | undefined>
  /** What was done. */
  readonly done: Ref<string | undefined>
  /** Does it, unless it is being done. Returns whether it succeeded. */
  run(task: () => Promise<string | undefined | void>): Promise<boolean>
  clear(): void
}

export function useDoing(): Doing {
  const busy = ref(false)
  const fault = ref<string>()
  const done = ref<string>()
  function clear(): void {
    fault.value = undefined
    done.value = undefined
  }
  return {
    busy,
    fault,
    done,
    clear,
    async run(task) {
      if (busy.value) {
        return false
      }
      busy.value = true
      clear()
      try {
        done.value = (await task()) ?? undefined
        return true
      } catch (error) {
        fault.value = sentence(error)
        return false
      } finally {
        busy.value = false
      }
    },
  }
}
