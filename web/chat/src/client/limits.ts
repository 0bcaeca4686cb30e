/** Limits of the chat, each with its unit. The functions enforce those of the protocol; the page only spares a round trip. */

/** Characters of a user's name, after trimming. */
export const NAME_CHARACTERS_MAX = 64

/** Characters (code points) of a message. */
export const TEXT_CHARACTERS_MAX = 4_000

/** Files on one message. */
export const ATTACHMENTS_MAX = 10

/** Characters (code points) of a file's name. */
export const FILE_NAME_CHARACTERS_MAX = 120

/** Milliseconds that a link to a file can be relied on. */
export const LINK_FRESH_MS = 55 * 60_000

/** Characters of a group's title. */
export const TITLE_CHARACTERS_MAX = 80

/** Messages asked for in one `open`. */
export const PAGE_MESSAGES = 50

/** Messages asked for in one `open` that fills a gap: as many as the protocol allows. */
export const GAP_PAGE_MESSAGES = 100

/** Messages kept of a conversation that nobody pages back in. Older ones are dropped and can be paged back. */
export const TIMELINE_MESSAGES_MAX = 1_000

/** Messages kept while somebody pages back. Beyond it the page does not load older ones. */
export const HISTORY_MESSAGES_MAX = 10_000

/** Messages kept behind a gap until it is filled. More are dropped: filling the gap brings them. */
export const EARLY_MESSAGES_MAX = 500

/** Messages waiting to be sent. One more is refused until some are through. */
export const UNSENT_MESSAGES_MAX = 100

/** Returns the number of characters as the functions count them: code points, not UTF-16 units. */
export function characters(text: string): number {
  let n = 0
  for (const _ of text) {
    n += 1
  }
  return n
}

/** Returns why the name cannot be used, or undefined when it can. Expects a trimmed name. */
export function nameFault(name: string): string | undefined {
  if (name === '') {
    return 'Enter a name.'
  }
  if (NAME_CHARACTERS_MAX < characters(name)) {
    return `A name has at most ${NAME_CHARACTERS_MAX} characters.`
  }
  if (/\p{Cc}/u.test(name)) {
    return 'A name cannot contain control characters.'
  }
  return undefined
}
