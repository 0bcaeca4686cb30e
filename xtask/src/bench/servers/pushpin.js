// Pushpin: WebSocket in, HTTP to an upstream. This process is the upstream, and its CPU time is not that of Pushpin: clients of / are put into
// one channel and told so, those of /echo get back what they send. It also takes what is posted and publishes it, one after the other, as
// Pushpin wants it: in JSON, each by a connection of its own.
const fs = require("fs");
const http = require("http");
const os = require("os");
const path = require("path");
const { freePort, listening, ready, run } = require("./children.js");

const LIBRARY = "/usr/lib/pushpin";

/** Returns an event of WebSocket-over-HTTP; Latin-1, so that a character is a byte. */
function event(name, content) {
  if (content === undefined) return `${name}\r\n`;
  return `${name} ${content.length.toString(16)}\r\n${content}\r\n`;
}

/** Returns the events of a request: names and contents. */
function parse(text) {
  const events = [];
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf("\r\n", at);
    const [name, length] = text.slice(at, end).split(" ");
    at = end + 2;
    if (length === undefined) {
      events.push([name]);
      continue;
    }
    const bytes = parseInt(length, 16);
    events.push([name, text.slice(at, at + bytes)]);
    at += bytes + 2;
  }
  return events;
}

function answer(url, [name, content]) {
  switch (name) {
    case "OPEN":
      if (url === "/echo") return event("OPEN");
      return event("OPEN") + event("TEXT", 'c:{"type":"subscribe","channel":"all"}') + event("TEXT", "ready");
    case "TEXT":
    case "BINARY":
    case "CLOSE":
      return event(name, content);
    case "DISCONNECT":
      return event("DISCONNECT");
    default:
      return "";
  }
}

const upstream = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const events = parse(Buffer.concat(parts).toString("latin1"));
    const text = events.map((event) => answer(request.url, event)).join("");
    response.writeHead(200, {
      "Content-Type": "application/websocket-events",
      "Sec-WebSocket-Extensions": 'grip; message-prefix=""',
    });
    response.end(Buffer.from(text, "latin1"));
  });
});

/** Publishes a text and returns when Pushpin has answered. */
function publish(port, content) {
  const items = [{ channel: "all", formats: { "ws-message": { content } } }];
  return new Promise((resolve, reject) => {
    const request = http.request({ port, host: "127.0.0.1", method: "POST", path: "/publish/", agent: false });
    request.on("response", (response) => {
      response.resume();
      response.on("end", () => (response.statusCode === 200 ? resolve() : reject(new Error(`it answered ${response.statusCode}`))));
    });
    request.on("error", reject);
    request.end(JSON.stringify({ items }));
  });
}

async function main() {
  // Paths of sockets must be short.
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "pushpin-"));
  process.on("exit", () => fs.rmSync(folder, { recursive: true, force: true }));
  fs.mkdirSync(path.join(folder, "run"));
  fs.mkdirSync(path.join(folder, "log"));
  upstream.keepAliveTimeout = 3_600_000;
  await new Promise((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  const write = (name, text) => {
    const file = path.join(folder, name);
    fs.writeFileSync(file, text);
    return file;
  };
  const [port, publishPort, push, subscribed, command] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const internal = fs.readFileSync(path.join(LIBRARY, "internal.conf"), "utf8");
  write("internal.conf", internal.replaceAll("ipc:///var/run/zurl/", `ipc://${folder}/run/`));
  write("routes", `* 127.0.0.1:${upstream.address().port},over_http\n`);
  const zurl = write(
    "zurl.conf",
    `[General]
in_spec=ipc://${folder}/run/zurl-in
in_stream_spec=ipc://${folder}/run/zurl-in-stream
out_spec=ipc://${folder}/run/zurl-out
in_req_spec=
defpolicy=allow
allow=
deny=
max_open_requests=20000
buffer_size=200000
timeout=600
in_hwm=100000
out_hwm=100000
`,
  );
  const pushpin = write(
    "pushpin.conf",
    `[global]
include=${folder}/internal.conf
rundir=${folder}/run
libdir=${LIBRARY}
ipc_prefix=pushpin-

[runner]
services=condure,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:${port}
logdir=${folder}/log
log_level=0
client_buffer_size=8192
client_maxconn=50000

[proxy]
routesfile=${folder}/routes
sig_iss=pushpin
sig_key=changeme
updates_check=off

[handler]
push_in_spec=tcp://127.0.0.1:${push}
push_in_sub_specs=tcp://127.0.0.1:${subscribed}
push_in_http_addr=127.0.0.1
push_in_http_port=${publishPort}
stats_spec=ipc://{rundir}/{ipc_prefix}stats
command_spec=tcp://127.0.0.1:${command}
message_rate=1000000
message_hwm=1000000
connection_subscription_max=20
`,
  );
  // One parent for all of it, whose descendants count.
  const both = 'zurl --loglevel=0 --config="$1" & z=$!; pushpin --config="$2" & trap "kill $z $!" TERM; wait; wait';
  const pid = run("sh", ["-c", both, "sh", zurl, pushpin]);
  await Promise.all([listening(port), listening(publishPort)]);
  let last = Promise.resolve();
  const publisher = http.createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      last = last.then(() => publish(publishPort, Buffer.concat(parts).toString()));
      last.then(() => response.end("ok"));
    });
  });
  // The connection is idle while messages are on their way.
  publisher.keepAliveTimeout = 3_600_000;
  await new Promise((resolve) => publisher.listen(0, "127.0.0.1", resolve));
  ready({ port, publish_port: publisher.address().port, pid });
}

main();
