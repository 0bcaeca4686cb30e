/**
 * As much of Amazon S3 as the chat asks for, in memory: objects that may be created only if absent, copies, parts, listings by
 * prefix, deletions of many. Signatures are not looked at. Written from the API reference of S3; it is for tests only.
 */
import { createHash, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import http from 'node:http';

const BUCKET = 'rooms';

/** Where in the bucket the chat keeps its objects. */
const PREFIX = 'some/where/';

/** Objects in one answer to a listing, fewer than S3 gives, so that a listing has several. */
const LISTED_MAX = 100;

const text = (value) => `${value}`.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);

export class SmallS3 {
  #server;
  #objects = new Map();
  #parts = new Map();
  /** Writes that had to find nothing, and those that found something. */
  conditional = { writes: 0, refused: 0 };

  static async make() {
    const store = new SmallS3();
    store.#server = http.createServer((request, response) => {
      store.#answer(request, response).catch((error) => response.writeHead(500).end(`${error}`));
    });
    store.#server.listen(0, '127.0.0.1');
    await once(store.#server, 'listening');
    return store;
  }

  get settings() {
    return {
      words: ['--storage', `s3://${BUCKET}/${PREFIX}`],
      environment: {
        AWS_ENDPOINT: `http://127.0.0.1:${this.#server.address().port}`,
        AWS_ALLOW_HTTP: 'true',
        AWS_REGION: 'here',
        AWS_ACCESS_KEY_ID: 'somebody',
        AWS_SECRET_ACCESS_KEY: 'something',
      },
    };
  }

  async names(prefix) {
    return [...this.#objects.keys()].filter((key) => key.startsWith(PREFIX + prefix)).map((key) => key.slice(PREFIX.length));
  }

  async clear() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, 'close');
  }

  async #answer(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const url = new URL(request.url, 'http://s3');
    const [bucket, ...rest] = url.pathname.slice(1).split('/');
    const key = decodeURIComponent(rest.join('/'));
    const asked = (name) => url.searchParams.get(name);
    const refuse = (status, code) => response.writeHead(status).end(`<Error><Code>${code}</Code><Message>${code}</Message></Error>`);
    const xml = (content, headers = {}) => response.writeHead(200, { 'Content-Type': 'application/xml', ...headers }).end(content);
    if (bucket !== BUCKET) return refuse(404, 'NoSuchBucket');
    switch (`${request.method} ${key === '' ? 'bucket' : 'object'}`) {
      case 'GET bucket':
        return xml(this.#list(asked('prefix') ?? '', asked('start-after') ?? '', asked('continuation-token') ?? ''));
      case 'POST bucket': {
        const keys = [...`${body}`.matchAll(/<Key>([^<]*)<\/Key>/g)].map(([, found]) => found);
        for (const found of keys) this.#objects.delete(found);
        return xml(`<DeleteResult>${keys.map((found) => `<Deleted><Key>${text(found)}</Key></Deleted>`).join('')}</DeleteResult>`);
      }
      case 'PUT object': {
        const upload = asked('uploadId');
        if (upload !== null) {
          const parts = this.#parts.get(upload);
          if (!parts) return refuse(404, 'NoSuchUpload');
          parts.set(Number(asked('partNumber')), body);
          return response.writeHead(200, { ETag: `"${asked('partNumber')}"` }).end();
        }
        const source = request.headers['x-amz-copy-source'];
        if (source !== undefined) {
          const copied = this.#objects.get(decodeURIComponent(source).replace(/^\/?[^/]+\//, ''));
          if (!copied) return refuse(404, 'NoSuchKey');
          const { etag } = this.#put(key, copied.body);
          return xml(`<CopyObjectResult><ETag>${etag}</ETag></CopyObjectResult>`);
        }
        if (request.headers['if-none-match'] === '*') {
          this.conditional.writes += 1;
          if (this.#objects.has(key)) {
            this.conditional.refused += 1;
            return refuse(412, 'PreconditionFailed');
          }
        }
        return response.writeHead(200, { ETag: this.#put(key, body).etag }).end();
      }
      case 'POST object': {
        const upload = asked('uploadId');
        if (upload === null) {
          const id = randomUUID();
          this.#parts.set(id, new Map());
          return xml(`<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
        }
        const parts = [...(this.#parts.get(upload) ?? [])].sort(([a], [b]) => a - b).map(([, part]) => part);
        this.#parts.delete(upload);
        const { etag } = this.#put(key, Buffer.concat(parts));
        return xml(`<CompleteMultipartUploadResult><ETag>${etag}</ETag></CompleteMultipartUploadResult>`);
      }
      case 'HEAD object':
      case 'GET object': {
        const found = this.#objects.get(key);
        if (!found) return refuse(404, 'NoSuchKey');
        const headers = { ETag: found.etag, 'Last-Modified': new Date(found.time).toUTCString(), 'Content-Length': found.body.length };
        return response.writeHead(200, headers).end(request.method === 'HEAD' ? undefined : found.body);
      }
      case 'DELETE object':
        this.#objects.delete(key);
        this.#parts.delete(asked('uploadId'));
        return response.writeHead(204).end();
      default:
        return refuse(405, 'MethodNotAllowed');
    }
  }

  #put(key, body) {
    const stored = { body, etag: `"${createHash('md5').update(body).digest('hex')}"`, time: Date.now() };
    this.#objects.set(key, stored);
    return stored;
  }

  #list(prefix, after, token) {
    const from = token === '' ? after : token;
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix) && from < key).sort();
    const page = keys.slice(0, LISTED_MAX);
    const contents = page.map((key) => {
      const { body, etag, time } = this.#objects.get(key);
      return `<Contents><Key>${text(key)}</Key><LastModified>${new Date(time).toISOString()}</LastModified><ETag>${text(etag)}</ETag><Size>${body.length}</Size></Contents>`;
    });
    const more = page.length < keys.length;
    const next = more ? `<NextContinuationToken>${text(page.at(-1))}</NextContinuationToken>` : '';
    return `<ListBucketResult><IsTruncated>${more}</IsTruncated>${next}<KeyCount>${page.length}</KeyCount>${contents.join('')}</ListBucketResult>`;
  }
}
