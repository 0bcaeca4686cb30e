/** A way to a store that counts the requests that pass. */
import { once } from 'node:events';
import http from 'node:http';

export class Counting {
  #server;
  requests = [];

  static async before(url) {
    const self = new Counting();
    const agent = new http.Agent({ keepAlive: true });
    self.#server = http.createServer((request, response) => {
      self.requests.push(`${request.method} ${request.url}`);
      const options = { agent, method: request.method, headers: request.headers };
      const onwards = http.request(new URL(request.url, url), options, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onwards.on('error', () => response.destroy());
      request.pipe(onwards);
    });
    self.#server.listen(0, '127.0.0.1');
    await once(self.#server, 'listening');
    self.agent = agent;
    return self;
  }

  get url() {
    return `http://127.0.0.1:${this.#server.address().port}`;
  }

  /** Returns the requests that `work` makes, and what it returns. */
  async during(work) {
    const before = this.requests.length;
    const result = await work();
    return { result, requests: this.requests.slice(before) };
  }

  async end() {
    this.#server.closeAllConnections();
    this.#server.close();
    this.agent.destroy();
    await once(this.#server, 'close');
  }
}
