import { expect, it } from 'vitest'
import { pieces } from './links'

function links(text: string): string[] {
  return pieces(text).flatMap(({ text: shown, href }) => (href === undefined ? [] : [shown]))
}

it.each([
  ['see https://example.com/a?b=c#d now', ['https://example.com/a?b=c#d']],
  ['https://example.com.', ['https://example.com']],
  ['(https://example.com/x_(y)), really?', ['https://example.com/x_(y)']],
  ['“https://example.com/a,b”… and http://b.example:8080/!', ['https://example.com/a,b”', 'http://b.example:8080/']],
  ['javascript:alert(1) data:text/html,x ftp://example.com', []],
  ['xhttps://example.com https:// http://', []],
  ['<a href="https://example.com/">', ['https://example.com/']],
])('finds the addresses in %s', (text, expected) => {
  expect(links(text)).toEqual(expected)
})

it('loses nothing', () => {
  for (const text of ['', 'plain', 'https://a.example', 'a https://a.example, b (https://b.example) c', 'http://[', '\n https://x.example \n']) {
    expect(pieces(text).map((piece) => piece.text).join('')).toBe(text)
  }
})

it('opens nothing but the web', () => {
  for (const { href } of pieces('HTTPS://EXAMPLE.COM/Path http://user:pw@host/ https://ex%61mple.com')) {
    expect(href === undefined || /^https?:/.test(href)).toBe(true)
  }
})
