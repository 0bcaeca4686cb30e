/** Lists that a person edits: each row keeps its identity while others move. */

let keys = 0

export interface Row<Value> {
  readonly key: number
  readonly value: Value
}

export function asRow<Value>(value: Value): Row<Value> {
  keys += 1
  return { key: keys, value }
}

/** Moves a row by one place, if there is one. */
export function move<Value>(rows: Row<Value>[], index: number, by: 1 | -1): void {
  const [row] = rows.slice(index, index + 1)
  if (row && index + by in rows) {
    rows.splice(index, 1)
    rows.splice(index + by, 0, row)
  }
}
