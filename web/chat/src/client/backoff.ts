/** How long to wait before the next try: exponential, capped, and spread so that many pages do not return at once. */

const FIRST_MS = 500
const CAP_MS = 30_000

/**
 * Returns the milliseconds to wait before retry number `attempt` (0 is the first).
 * Half of the exponential wait is certain, half is chance.
 *
 * @param chance a random number in [0, 1)
 */
export function backoffMs(attempt: number, chance: number): number {
  const full = Math.min(CAP_MS, FIRST_MS * 2 ** Math.min(attempt, 16))
  return Math.round(full / 2 + (chance * full) / 2)
}
