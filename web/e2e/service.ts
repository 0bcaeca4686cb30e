/** A running `hookwire dev`: started on free ports with its own data folder, or the one whose page is named. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const BUILT = fileURLToPath(new URL('../../target/debug/hookwire', import.meta.url))

/** The binary under test. */
const BINARY = process.env.HOOKWIRE_BIN ?? (existsSync(BUILT) ? BUILT : undefined)

interface Ready {
  readonly chat_url: string
  readonly service_url: string
}

export class Service {
  #process: ChildProcess | undefined
  #ready: Ready | undefined
  #folder: string | undefined

  /** Starts the binary, or uses the page of `HOOKWIRE_CHAT_URL` when only that is given. */
  static async start(): Promise<Service> {
    const service = new Service()
    const url = process.env.HOOKWIRE_CHAT_URL
    if (BINARY === undefined && url !== undefined) {
      service.#ready = { chat_url: url, service_url: '' }
    } else {
      service.#folder = await mkdtemp(join(tmpdir(), 'hookwire-e2e-'))
      await service.#spawn('127.0.0.1:0', '127.0.0.1:0')
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

  /** Ends the process in good order and removes its data. Returns its exit code; null when it is not ours. */
  async stop(): Promise<number | null> {
    const code = await this.#end('SIGTERM')
    if (this.#folder !== undefined) {
      await rm(this.#folder, { recursive: true, force: true })
    }
    return code
  }

  async #spawn(listen: string, chatListen: string): Promise<void> {
    if (BINARY === undefined || this.#folder === undefined) {
      throw new Error('no binary: build `hookwire`, or name one by HOOKWIRE_BIN, or a running page by HOOKWIRE_CHAT_URL')
    }
    const child = spawn(BINARY, ['dev', '--listen', listen, '--chat-listen', chatListen, '--data', this.#folder, '--json'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    this.#process = child
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('`hookwire dev` ended before it was ready')))
    const line = once(createInterface({ input: child.stdout }), 'line')
    const [first] = (await Promise.race([line, ended])) as [string]
    ended.catch(() => undefined)
    this.#ready = JSON.parse(first) as Ready
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#process
    this.#process = undefined
    if (!child || child.exitCode !== null) {
      return child?.exitCode ?? null
    }
    const exited = once(child, 'exit')
    child.kill(signal)
    const [code] = (await exited) as [number | null]
    return code
  }
}
