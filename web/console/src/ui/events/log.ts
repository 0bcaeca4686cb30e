/** The event log on the screen: it grows at the top, and can be held still. */

import { type Ref, computed, onScopeDispose, ref, shallowRef, watch } from 'vue'
import { type EventEntry, type EventFilter, fetchEvents } from '../../api/events'
import { sentence } from '../../api/words'
import { FIRST_ENTRIES, follow } from '../../live/follow'

/** Entries on the screen; the oldest go first. */
const ENTRIES_MAX = 500

/** Older entries that are fetched at a time. */
const OLDER_ENTRIES = 100

export interface EventLog {
  /** Newest first. */
  readonly entries: Ref<readonly EventEntry[]>
  readonly paused: Ref<boolean>
  /** Entries that came since the log was paused. */
  readonly waiting: Ref<number>
  readonly missed: Ref<number>
  /** Whether anything was heard of the service yet. */
  readonly loaded: Ref<boolean>
  readonly fault: Ref<string | undefined>
  /** Whether there may be older entries that fit. */
  readonly hasOlder: Ref<boolean>
  older(): Promise<void>
}

export function useEventLog(filter: Ref<EventFilter>): EventLog {
  const all = shallowRef<readonly EventEntry[]>([])
  const held = shallowRef<readonly EventEntry[]>()
  const paused = ref(false)
  const waiting = ref(0)
  const missed = ref(0)
  const loaded = ref(false)
  const fault = ref<string>()
  const exhausted = ref(false)
  let running = new AbortController()

  watch(
    filter,
    (wanted) => {
      running.abort()
      running = new AbortController()
      const { signal } = running
      all.value = []
      held.value = paused.value ? [] : undefined
      waiting.value = missed.value = 0
      loaded.value = exhausted.value = false
      void follow(
        wanted,
        {
          begin(entries) {
            all.value = entries.toReversed()
            loaded.value = true
            exhausted.value = entries.length < FIRST_ENTRIES
            // What is held still may be of a service that ended.
            if (paused.value && held.value?.length === 0) {
              held.value = all.value
            }
          },
          entry(entry) {
            all.value = [entry, ...all.value.slice(0, ENTRIES_MAX - 1)]
            waiting.value += paused.value ? 1 : 0
          },
          missed(count) {
            missed.value += count
          },
          state(words) {
            fault.value = words
          },
        },
        signal,
      )
    },
    { immediate: true },
  )
  watch(paused, (still) => {
    held.value = still ? all.value : undefined
    waiting.value = 0
  })
  onScopeDispose(() => running.abort())

  const entries = computed(() => held.value ?? all.value)
  return {
    entries,
    paused,
    waiting,
    missed,
    loaded,
    fault,
    hasOlder: computed(() => !exhausted.value && 0 < entries.value.length && entries.value.length < ENTRIES_MAX),
    async older() {
      const { signal } = running
      const before = entries.value.at(-1)?.id
      try {
        const found = await fetchEvents(filter.value, before, OLDER_ENTRIES)
        if (signal.aborted || before !== entries.value.at(-1)?.id) {
          return
        }
        exhausted.value = found.length < OLDER_ENTRIES
        all.value = [...all.value, ...found.toReversed()].slice(0, ENTRIES_MAX)
        held.value = held.value && [...held.value, ...found.toReversed()].slice(0, ENTRIES_MAX)
      } catch (error) {
        fault.value = sentence(error)
      }
    },
  }
}
