import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: { include: ['chat/src/**/*.test.ts', 'console/src/**/*.test.ts'], environment: 'node' },
})
