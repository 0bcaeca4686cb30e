import { expect, it } from 'vitest'
import { backoffMs } from './backoff'

it('doubles up to thirty seconds, half of it by chance', () => {
  expect([0, 1, 2, 3].map((attempt) => backoffMs(attempt, 0))).toEqual([250, 500, 1_000, 2_000])
  expect([0, 1, 2, 3].map((attempt) => backoffMs(attempt, 1))).toEqual([500, 1_000, 2_000, 4_000])
  expect(backoffMs(10, 0)).toBe(15_000)
  expect(backoffMs(100_000, 1)).toBe(30_000)
})
