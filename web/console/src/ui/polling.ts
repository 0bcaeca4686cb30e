/** Looks at something again and again while it is on the screen. */

import { onScopeDispose } from 'vue'
import { sleep } from '../live/follow'

/** Runs `look` at once and then every `milliseconds`, one at a time, as long as the scope lives. */
export function usePolling(milliseconds: number, look: (signal: AbortSignal) => Promise<void>): void {
  const { signal, abort } = abortion()
  onScopeDispose(abort)
  void (async () => {
    while (!signal.aborted) {
      await look(signal)
      await sleep(milliseconds, signal)
    }
  })()
}

function abortion(): { signal: AbortSignal; abort: () => void } {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}
