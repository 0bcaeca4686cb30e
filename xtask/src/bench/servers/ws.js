// ws: sends to all clients what is posted to it, and back to a client what it sends.
const http = require("http");
const { WebSocketServer, WebSocket } = require("ws");

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const payload = Buffer.concat(parts);
    for (const client of sockets.clients) {
      if (client.readyState === WebSocket.OPEN) client.send(payload, { binary: false });
    }
    response.end("ok");
  });
});
// The publisher's connection is idle while messages are on their way.
server.keepAliveTimeout = 3_600_000;
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
sockets.on("connection", (client) => {
  client.on("error", () => {});
  client.on("message", (payload, binary) => client.send(payload, { binary }));
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on("end", () => process.exit()).resume();
