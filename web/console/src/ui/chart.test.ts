import { describe, expect, it } from 'vitest'
import { linePath, most, nearest, scaleEnd } from './chart'
import { bytes, duration, milliseconds, percent, short } from './format'

describe('a chart', () => {
  it.each([[0, 1, 1], [3, 1, 5], [5, 1, 5], [5.1, 1, 10], [1_001, 1, 2_000], [0.3, 0.1, 0.5], [99, 1, 100]])(
    'whose highest value is %d ends at a round number',
    (highest, least, end) => {
      expect(scaleEnd(highest, least)).toBe(end)
    },
  )

  it('draws the newest value at the right edge and leaves gaps', () => {
    expect(linePath([0, 5, undefined, 10], 4, 10, 30, 100)).toBe('M0 100L10 50M30 0')
    expect(linePath([10], 4, 10, 30, 100)).toBe('M30 0')
    expect(linePath([], 4, 10, 30, 100)).toBe('')
  })

  it('knows what is under the pointer', () => {
    expect(nearest(1, 3, 101)).toBe(2)
    expect(nearest(0.98, 3, 101)).toBe(0)
    expect(nearest(0, 3, 101)).toBe(0)
    expect(nearest(0.5, 0, 101)).toBeUndefined()
  })

  it('finds the highest value of all lines', () => {
    expect(most([{ name: 'a', values: [1, undefined] }, { name: 'b', values: [7] }])).toBe(7)
    expect(most([])).toBe(0)
  })
})

describe('figures for people', () => {
  it('are short', () => {
    expect([0, 0.349, 12.345, 18_320].map(short)).toEqual(['0', '0.349', '12.3', '18.3K'])
    expect([512, 1_500, 3e9].map(bytes)).toEqual(['512 B', '1.5 kB', '3 GB'])
    expect([45.9, 200, 18_720, 1_047_600].map(duration)).toEqual(['45 s', '3 min', '5 h 12 min', '12 d 3 h'])
    expect([0.5, 1_500].map(milliseconds)).toEqual(['0.5 ms', '1.5 s'])
    expect([0.015, 0.5].map(percent)).toEqual(['1.5 %', '50 %'])
  })
})
