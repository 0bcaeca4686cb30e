/** The browser's storage, which may be denied or full: a page goes on without it. */

/** Reads from a storage that the browser may deny. */
export function read(storage: Storage, key: string): string | null {
  try {
    return storage.getItem(key)
  } catch (error) {
    console.warn('The browser does not let the page read its storage.', error)
    return null
  }
}

/** Writes to a storage that the browser may deny or that may be full; `null` removes. */
export function write(storage: Storage, key: string, value: string | null): void {
  try {
    if (value === null) {
      storage.removeItem(key)
    } else {
      storage.setItem(key, value)
    }
  } catch (error) {
    console.warn('The browser does not let the page write to its storage.', error)
  }
}
