/** The figures of the service over the last minutes, collected as long as somebody is signed in. */

import { type Ref, ref, shallowRef } from 'vue'
import { type Overview, fetchOverview } from '../../api/overview'
import { sentence } from '../../api/words'
import { POLL_MS, type Sample, withSample } from '../../live/rates'
import { usePolling } from '../polling'

export interface Watching {
  readonly overview: Ref<Overview | undefined>
  readonly samples: Ref<readonly Sample[]>
  /** Why the figures are not of now. */
  readonly fault: Ref<string | undefined>
}

export function watchOverview(): Watching {
  const overview = shallowRef<Overview>()
  const samples = shallowRef<readonly Sample[]>([])
  const fault = ref<string>()
  usePolling(POLL_MS, async (signal) => {
    try {
      const now = await fetchOverview(signal)
      samples.value = withSample(samples.value, overview.value, now)
      overview.value = now
      fault.value = undefined
    } catch (error) {
      if (!signal.aborted) {
        fault.value = sentence(error)
      }
    }
  })
  return { overview, samples, fault }
}
