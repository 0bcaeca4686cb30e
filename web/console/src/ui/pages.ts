/** One page of a list at a time, looked at again while it is on the screen. */

import { type Ref, onScopeDispose, ref, shallowRef, watch } from 'vue'
import type { Page } from '../api/hubs'
import { sentence } from '../api/words'
import { sleep } from '../live/follow'

/** How often a page is looked at again, in milliseconds. */
const AGAIN_MS = 5_000

export interface Pages<Item> {
  readonly items: Ref<readonly Item[]>
  /** Whether the list has been seen at all. */
  readonly loaded: Ref<boolean>
  readonly fault: Ref<string | undefined>
  readonly number: Ref<number>
  readonly hasNext: Ref<boolean>
  next(): void
  previous(): void
  reload(): void
}

/** `load` gets where the page begins; what it depends on reactively starts the list anew. */
export function usePages<Item>(source: () => unknown, load: (after: string | undefined, signal: AbortSignal) => Promise<Page<Item>>): Pages<Item> {
  const items = shallowRef<readonly Item[]>([])
  const loaded = ref(false)
  const fault = ref<string>()
  const number = ref(1)
  const hasNext = ref(false)
  /** Where each page up to this one begins. */
  let starts: (string | undefined)[] = [undefined]
  let nextStart: string | undefined
  let running = new AbortController()

  function restart(): void {
    running.abort()
    running = new AbortController()
    void keepLooking(running.signal)
  }

  async function keepLooking(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const page = await load(starts.at(-1), signal)
        if (signal.aborted) {
          return
        }
        items.value = page.items
        nextStart = page.next
        hasNext.value = page.next !== undefined
        number.value = starts.length
        loaded.value = true
        fault.value = undefined
      } catch (error) {
        if (signal.aborted) {
          return
        }
        fault.value = sentence(error)
      }
      await sleep(AGAIN_MS, signal)
    }
  }

  watch(
    source,
    () => {
      starts = [undefined]
      items.value = []
      loaded.value = false
      restart()
    },
    { immediate: true },
  )
  onScopeDispose(() => running.abort())

  return {
    items,
    loaded,
    fault,
    number,
    hasNext,
    next() {
      if (nextStart !== undefined) {
        starts.push(nextStart)
        restart()
      }
    },
    previous() {
      if (1 < starts.length) {
        starts.pop()
        restart()
      }
    },
    reload: restart,
  }
}
