/** Asks the service about a draft while somebody types. */

import { type Ref, onScopeDispose, ref, shallowRef, watch } from 'vue'
import type { Fault } from '../../api/call'
import { validate } from '../../api/settings'
import { sentence } from '../../api/words'
import { sleep } from '../../live/follow'

/** Milliseconds without a keystroke after which the service is asked. */
const QUIET_MS = 250

export interface Checking {
  readonly faults: Ref<readonly Fault[]>
  /** Why the draft could not be checked. */
  readonly failure: Ref<string | undefined>
}

/** Runs `ask` with what `source` gives when that has not changed for a moment; a newer question ends the older one. */
export function whenQuiet<Value>(source: () => Value, ask: (value: Value, signal: AbortSignal) => Promise<void>): void {
  let running = new AbortController()
  watch(
    source,
    async (value) => {
      running.abort()
      const { signal } = (running = new AbortController())
      await sleep(QUIET_MS, signal)
      if (!signal.aborted) {
        await ask(value, signal)
      }
    },
    { immediate: true },
  )
  onScopeDispose(() => running.abort())
}

/** `draft` gives the document as JSON text, so that every change is seen; `undefined`: there is none. */
export function useChecking(draft: () => string | undefined): Checking {
  const faults = shallowRef<readonly Fault[]>([])
  const failure = ref<string>()
  whenQuiet(draft, async (document, signal) => {
    try {
      const found = document === undefined ? [] : await validate(JSON.parse(document) as Record<string, unknown>, signal)
      if (!signal.aborted) {
        faults.value = found
        failure.value = undefined
      }
    } catch (error) {
      if (!signal.aborted) {
        failure.value = sentence(error)
      }
    }
  })
  return { faults, failure }
}

/** Returns what is wrong at a place, if anything is. */
export function faultAt(faults: readonly Fault[], path: string): string | undefined {
  return faults.find((fault) => fault.path === path)?.message
}

/** Returns a fault in one line; an empty path is the document as a whole. */
export function faultText({ path, message }: Fault): string {
  return path === '' ? message : `${path}: ${message}`
}

/** Returns the faults below a place that no field of the page shows. */
export function otherFaults(faults: readonly Fault[], shown: readonly string[]): readonly Fault[] {
  return faults.filter(({ path }) => !shown.includes(path))
}
