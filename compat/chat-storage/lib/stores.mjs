/** Stores for the chat, each empty and for one test: a folder, and Azurite, Azure's own emulator of Blob storage. */
import { createRequire } from 'node:module';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';

import { BlobServiceClient } from '@azure/storage-blob';

import { Process } from './processes.mjs';

/** Account and key of the emulator are the same everywhere. */
const ACCOUNT = 'devstoreaccount1';
const KEY = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';

/** Where the chat keeps its objects if nothing else is said. */
const CONTAINER = 'hookwire-chat';

export class Folder {
  static async make() {
    const folder = new Folder();
    folder.path = await mkdtemp(path.join(tmpdir(), 'hookwire-storage-'));
    return folder;
  }

  /** What `hookwire chat` must be told. */
  get settings() {
    return { words: ['--storage', this.path], environment: {} };
  }

  async put(name, content) {
    const file = path.join(this.path, name);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, content);
  }

  /** Returns the names of all objects below `prefix`. */
  async names(prefix) {
    return (await readdir(path.join(this.path, prefix))).map((name) => `${prefix}${name}`);
  }

  async clear() {
    await rm(this.path, { recursive: true, force: true });
  }
}

export class Azurite {
  #process;

  static async make() {
    const azurite = new Azurite();
    const program = createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js');
    const words = ['--blobHost', '127.0.0.1', '--blobPort', '0', '--inMemoryPersistence', '--skipApiVersionCheck', '--disableTelemetry', '--silent'];
    azurite.#process = await Process.start(process.execPath, [program, ...words], {
      ready: (line) => /successfully listens on (http:\S+)/.exec(line)?.[1],
    });
    azurite.url = azurite.#process.ready;
    return azurite;
  }

  /** Returns the connection string by way of `url`, which leads to the emulator. */
  connectionString(url = this.url) {
    return `DefaultEndpointsProtocol=http;AccountName=${ACCOUNT};AccountKey=${KEY};BlobEndpoint=${url}/${ACCOUNT};`;
  }

  get settings() {
    return { words: [], environment: { AzureWebJobsStorage: this.connectionString() } };
  }

  get #container() {
    return BlobServiceClient.fromConnectionString(this.connectionString()).getContainerClient(CONTAINER);
  }

  async put(name, content) {
    await this.#container.createIfNotExists();
    await this.#container.getBlockBlobClient(name).upload(content, Buffer.byteLength(content));
  }

  async names(prefix) {
    const names = [];
    for await (const blob of this.#container.listBlobsFlat({ prefix })) names.push(blob.name);
    return names;
  }

  async clear() {
    await this.#process.end('SIGKILL');
  }
}
