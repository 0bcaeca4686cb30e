import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/** How the files run in one dialect, after those of a lower order. */
function inDialect(name: string, dialect: string, order: number, include: string[]) {
  return {
    test: {
      name,
      root: fileURLToPath(new URL('.', import.meta.url)),
      include,
      env: { HOOKWIRE_E2E_DIALECT: dialect },
      environment: 'node',
      // Every wait in the tests has a shorter limit of its own, which says what was waited for.
      testTimeout: 240_000,
      hookTimeout: 120_000,
      sequence: { groupOrder: order },
    },
  } as const
}

export default defineConfig({
  test: {
    // One browser and one service at a time: the tests share a small machine.
    fileParallelism: false,
    projects: [
      inDialect('preview', 'preview', 0, ['chat.e2e.ts', 'looks.e2e.ts']),
      inDialect('web-pubsub', 'web-pubsub', 1, ['chat.e2e.ts']),
      inDialect('console', 'web-pubsub', 2, ['console*.e2e.ts']),
    ],
  },
})
