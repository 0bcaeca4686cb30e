import vue from '@vitejs/plugin-vue'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vite'

/** Where `npm run dev` finds the functions: a running `hookwire dev` or `hookwire chat`. */
const functions = process.env.HOOKWIRE_CHAT_URL ?? 'http://127.0.0.1:7071'

export default defineConfig({
  root: fileURLToPath(new URL('.', import.meta.url)),
  base: '/',
  plugins: [vue()],
  build: {
    outDir: fileURLToPath(new URL('../dist/chat', import.meta.url)),
    emptyOutDir: true,
    target: 'es2022',
    // Every asset is a file: a strict content security policy refuses data URLs.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
  server: { host: '127.0.0.1', proxy: { '/api': functions } },
})
