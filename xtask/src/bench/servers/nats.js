// NATS: clients at its WebSocket gateway subscribe to one subject. This process takes what is posted and publishes it by NATS's own protocol
// over TCP; its CPU time is not that of NATS.
const fs = require("fs");
const http = require("http");
const net = require("net");
const path = require("path");
const { freePort, listening, ready, run } = require("./children.js");

const PROGRAM = path.join(__dirname, "venv/bin/nats-server");

async function main() {
  const [port, own] = [await freePort(), await freePort()];
  const configuration = path.join(__dirname, "nats.conf");
  fs.writeFileSync(
    configuration,
    `listen: "127.0.0.1:${own}"
max_pending: 1GB
write_deadline: "1m"
ping_interval: "1h"
log_file: "${path.join(__dirname, "nats.log")}"
websocket {
  listen: "127.0.0.1:${port}"
  no_tls: true
  compression: false
}
`,
  );
  const pid = run(PROGRAM, ["-c", configuration]);
  await listening(port);
  const nats = net.connect(own, "127.0.0.1");
  nats.setNoDelay(true);
  nats.write('CONNECT {"verbose":false,"pedantic":false}\r\n');
  nats.on("data", (data) => {
    if (data.includes("PING\r\n")) nats.write("PONG\r\n");
    if (data.includes("-ERR")) throw new Error(data.toString());
  });
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      const payload = Buffer.concat(parts);
      nats.write(Buffer.concat([Buffer.from(`PUB all ${payload.length}\r\n`), payload, Buffer.from("\r\n")]));
      response.end("ok");
    });
  });
  // The publisher's connection is idle while messages are on their way.
  server.keepAliveTimeout = 3_600_000;
  server.listen(0, "127.0.0.1", () => ready({ port, publish_port: server.address().port, pid }));
}

main();
