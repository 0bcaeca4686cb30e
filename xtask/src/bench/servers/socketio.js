// Socket.IO: sends to all clients what is posted to it. Clients are ready when their namespace is connected.
const http = require("http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => {
  if (request.url.startsWith("/socket.io")) return;
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    sockets.emit("message", Buffer.concat(parts).toString());
    response.end("ok");
  });
});
// The publisher's connection is idle while messages are on their way.
server.keepAliveTimeout = 3_600_000;
const sockets = new Server(server, { perMessageDeflate: false, pingInterval: 3_600_000, pingTimeout: 3_600_000 });
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on("end", () => process.exit()).resume();
