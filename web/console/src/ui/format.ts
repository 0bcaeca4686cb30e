/** Numbers and times for people. */

const COUNT = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const SHORT = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 })

/** Returns a whole number with separators. */
export function count(value: number): string {
  return COUNT.format(value)
}

/** Returns a number in few characters: 0.35, 12.1, 18.3K. */
export function short(value: number): string {
  return SHORT.format(value)
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB']

/** Returns a size in the unit that suits it. */
export function bytes(value: number): string {
  let unit = 0
  let size = value
  while (1_000 <= size && unit < UNITS.length - 1) {
    size /= 1_000
    unit += 1
  }
  return `${short(size)} ${UNITS[unit]}`
}

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`
}

/** Returns how long something has lasted: 45 s, 3 min, 5 h 12 min, 12 d 3 h. */
export function duration(seconds: number): string {
  const whole = Math.floor(seconds)
  const [days, hours, minutes] = [Math.floor(whole / 86_400), Math.floor(whole / 3_600) % 24, Math.floor(whole / 60) % 60]
  if (0 < days) {
    return `${days} d ${hours} h`
  }
  if (0 < hours) {
    return `${hours} h ${minutes} min`
  }
  return 0 < minutes ? `${minutes} min` : `${whole} s`
}

export function milliseconds(value: number): string {
  return value < 1_000 ? `${short(value)} ms` : `${short(value / 1_000)} s`
}

/** Returns the time of the day by this computer's clock, to the millisecond. */
export function clock(time: number): string {
  const at = new Date(time)
  const two = (value: number) => String(value).padStart(2, '0')
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
}

/** Returns day and time. */
export function dateTime(time: string | number): string {
  return new Date(time).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' })
}
