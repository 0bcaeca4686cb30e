// Bun: sends to all clients what is posted to it, by its own publish, and back to a client what it sends.
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  // The publisher's connection is idle while messages are on their way.
  idleTimeout: 0,
  async fetch(request, server) {
    if (server.upgrade(request)) return;
    server.publish("all", await request.text());
    return new Response("ok");
  },
  websocket: {
    idleTimeout: 0,
    perMessageDeflate: false,
    maxPayloadLength: 64 * 1024 * 1024,
    backpressureLimit: 64 * 1024 * 1024,
    open: (client) => client.subscribe("all"),
    message: (client, payload) => client.send(payload),
  },
});
console.log(JSON.stringify({ port: server.port }));
process.stdin.on("end", () => process.exit()).resume();
