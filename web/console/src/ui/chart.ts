/** Where the lines of a chart run. */

export interface Series {
  readonly name: string
  readonly values: readonly (number | undefined)[]
}

/** Returns where the scale ends so that its halves are round numbers: 1, 2, 5, 10, 20, 50 … */
export function scaleEnd(most: number, least: number): number {
  const wanted = Math.max(most, least)
  const power = 10 ** Math.floor(Math.log10(wanted))
  const step = [1, 2, 5, 10].find((each) => wanted <= each * power * (1 + Number.EPSILON)) ?? 10
  return step * power
}

/** Returns the largest value of all series. */
export function most(series: readonly Series[]): number {
  return Math.max(0, ...series.flatMap(({ values }) => values.filter((value) => value !== undefined)))
}

/** Returns the path of a line, whose last value is at the right edge; absent values are gaps. */
export function linePath(values: readonly (number | undefined)[], places: number, end: number, width: number, height: number): string {
  const step = width / Math.max(1, places - 1)
  const first = width - (values.length - 1) * step
  let pen = 'M'
  return values
    .map((value, index) => {
      if (value === undefined) {
        pen = 'M'
        return ''
      }
      const point = `${pen}${round(first + index * step)} ${round(height - (value / end) * height)}`
      pen = 'L'
      return point
    })
    .join('')
}

/** Returns the index of the value nearest to a place, which is a share of the width. */
export function nearest(share: number, count: number, places: number): number | undefined {
  const index = Math.round(share * (places - 1)) - (places - count)
  return 0 < count ? Math.min(count - 1, Math.max(0, index)) : undefined
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
