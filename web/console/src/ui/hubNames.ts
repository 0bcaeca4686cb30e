/** Names of hubs to choose from. */

import { type Ref, onMounted, onScopeDispose, shallowRef } from 'vue'
import { listHubs } from '../api/hubs'

/** Returns the first hubs that have a connection. They are suggestions: without them any name can be typed. */
export function useHubNames(): Ref<readonly string[]> {
  const names = shallowRef<readonly string[]>([])
  const ended = new AbortController()
  onMounted(async () => {
    try {
      names.value = (await listHubs(undefined, ended.signal)).items
    } catch (error) {
      if (!ended.signal.aborted) {
        console.warn('There are no suggestions of hubs.', error)
      }
    }
  })
  onScopeDispose(() => ended.abort())
  return names
}
