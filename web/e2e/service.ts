/** A running `hookwire dev`: started on free ports with its own data folder, or the one whose page is named. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const BUILT = fileURLToPath(new URL('../../target/debug/hookwire', import.meta.url))

/** The dialect in which service and chat speak: a test project sets it. */
export const DIALECT = process.env.HOOKWIRE_E2E_DIALECT ?? 'preview'

/** The binary under test. */
const BINARY = process.env.HOOKWIRE_BIN ?? (existsSync(BUILT) ? BUILT : undefined)

/** The lowest and the highest port that may be tried. */
const PORT_MIN = 10_000
const PORT_MAX = 65_535

/** Ports that are tried until one is free. */
const TRIES_MAX = 100

interface Ready {
  readonly chat_url: string
  readonly service_url: string
  readonly connection_string: string
}

export class Service {
  #process: ChildProcess | undefined
  #ready: Ready | undefined
  #folder: string | undefined
  readonly #more: readonly string[]

  private constructor(more: readonly string[]) {
    this.#more = more
  }

  /** Starts the binary with more arguments, or uses the page of `HOOKWIRE_CHAT_URL` when only that is given. */
  static async start(...more: readonly string[]): Promise<Service> {
    const service = new Service(more)
    const url = process.env.HOOKWIRE_CHAT_URL
    if (BINARY === undefined && url !== undefined) {
      service.#ready = { chat_url: url, service_url: '', connection_string: '' }
    } else {
      service.#folder = await mkdtemp(join(tmpdir(), 'hookwire-e2e-'))
      await service.#spawn(`127.0.0.1:${await quietPort()}`, `127.0.0.1:${await quietPort()}`)
    }
    return service
  }

  /** The address of the chat page. */
  get url(): string {
    if (!this.#ready) {
      throw new Error('the service is not ready')
    }
    return this.#ready.chat_url
  }

  /** The address of the console. */
  get consoleUrl(): string {
    return new URL('/console', this.#ready?.service_url).href
  }

  /** The key that opens the console. */
  get key(): string {
    return /AccessKey=([^;]+)/u.exec(this.#ready?.connection_string ?? '')?.[1] ?? ''
  }

  /** Whether the tests may end the process. */
  get owned(): boolean {
    return this.#folder !== undefined
  }

  /** Ends the process as a power cut would. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  /** Starts it again on the same ports and data. */
  async restart(): Promise<void> {
    const host = (url: string | undefined) => new URL(url ?? '').host
    await this.#spawn(host(this.#ready?.service_url), host(this.#ready?.chat_url))
  }

  /** Ends the process in good order and removes its data. Returns its exit code, or the signal that ended it. */
  async stop(): Promise<number | NodeJS.Signals | undefined> {
    const ending = await this.#end('SIGTERM')
    if (this.#folder !== undefined) {
      await rm(this.#folder, { recursive: true, force: true })
    }
    return ending
  }

  async #spawn(listen: string, chatListen: string): Promise<void> {
    if (BINARY === undefined || this.#folder === undefined) {
      throw new Error('no binary: build `hookwire`, or name one by HOOKWIRE_BIN, or a running page by HOOKWIRE_CHAT_URL')
    }
    const places = ['--listen', listen, '--chat-listen', chatListen, '--data', this.#folder]
    const child = spawn(BINARY, ['dev', '--dialect', DIALECT, ...places, ...this.#more, '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#process = child
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('`hookwire dev` ended before it was ready')))
    const line = once(createInterface({ input: child.stdout }), 'line')
    const [first] = (await Promise.race([line, ended])) as [string]
    ended.catch(() => undefined)
    this.#ready = JSON.parse(first) as Ready
  }

  async #end(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | undefined> {
    const child = this.#process
    this.#process = undefined
    if (!child) {
      return undefined
    }
    if (child.exitCode === null && child.signalCode === null) {
      const exited = once(child, 'exit')
      child.kill(signal)
      await exited
    }
    return child.exitCode ?? child.signalCode ?? undefined
  }
}

/**
 * Returns a free port that the system gives to nobody who does not ask for it by number. While the service is dead, its
 * ports are nobody's: one that the system hands out could become the source of another connection.
 */
async function quietPort(): Promise<number> {
  const range = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8')
  const [low = 0, high = 0] = range.trim().split(/\s+/u).map(Number)
  const [first, last] = PORT_MIN < low ? [PORT_MIN, low - 1] : [high + 1, PORT_MAX]
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const port = first + Math.floor(Math.random() * (last - first + 1))
    const server = createServer()
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    if (free) {
      await new Promise((resolve) => server.close(resolve))
      return port
    }
  }
  throw new Error(`none of ${TRIES_MAX} ports from ${first} to ${last} is free`)
}
