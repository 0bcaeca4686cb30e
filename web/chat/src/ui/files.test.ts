import { expect, it } from 'vitest'
import { isPicture, sizeText } from './files'

it('says sizes in the unit that fits', () => {
  expect([0, 999, 1_000, 47_300, 999_499, 999_500, 10_485_760].map(sizeText)).toEqual(['0 B', '999 B', '1 kB', '47 kB', '999 kB', '1.0 MB', '10.5 MB'])
})

it('knows pictures by what the functions say', () => {
  const types = ['image/png', 'image/jpeg', 'image/gif', 'image/webp', 'image/svg+xml', 'application/octet-stream', '']
  expect(types.filter((type) => isPicture({ name: 'x.png', type, size: 1 }))).toEqual(types.slice(0, 4))
})
