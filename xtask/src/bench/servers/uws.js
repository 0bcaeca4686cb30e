// uWebSockets: sends to all clients what is posted to it, by its own publish, and back to a client what it sends.
const uws = require("uwebsockets");

const app = uws.App();
app.ws("/*", {
  compression: uws.DISABLED,
  maxPayloadLength: 64 * 1024 * 1024,
  maxBackpressure: 64 * 1024 * 1024,
  idleTimeout: 0,
  open: (client) => client.subscribe("all"),
  message: (client, payload, binary) => client.send(payload, binary),
});
app.post("/pub", (response) => {
  const parts = [];
  response.onAborted(() => {});
  response.onData((part, last) => {
    parts.push(Buffer.from(part.slice(0)));
    if (last) {
      app.publish("all", Buffer.concat(parts), false);
      response.end("ok");
    }
  });
});
app.listen("127.0.0.1", 0, (listening) => {
  console.log(JSON.stringify({ port: uws.us_socket_local_port(listening) }));
});
process.stdin.on("end", () => process.exit()).resume();
