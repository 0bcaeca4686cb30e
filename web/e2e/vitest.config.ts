import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    root: fileURLToPath(new URL('.', import.meta.url)),
    include: ['*.e2e.ts'],
    environment: 'node',
    // One browser and one service at a time: the tests share a small machine.
    fileParallelism: false,
    // Every wait in the tests has a shorter limit of its own, which says what was waited for.
    testTimeout: 240_000,
    hookTimeout: 120_000,
  },
})
