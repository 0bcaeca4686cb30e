// What the servers that are programs of their own have in common: a free port, programs that run beside this one and end with it, and the
// line that tells that clients may come.
const fs = require("fs");
const net = require("net");
const { spawn } = require("child_process");

const END_MS = 3_000;
const READY_MS = 10_000;
const LOOK_MS = 20;

const roots = [];

/** Returns a port that was free just now. */
function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Starts a program and returns its process id. When it ends, everything does. Its output goes to where errors go. */
function run(program, args) {
  const child = spawn(program, args, { stdio: ["ignore", 2, 2] });
  roots.push(child.pid);
  child.on("error", (error) => end(1, error));
  child.on("exit", (code) => end(1, `${program} ended with ${code}`));
  return child.pid;
}

/** Waits until something listens on a port. */
async function listening(port) {
  for (const deadline = Date.now() + READY_MS; Date.now() < deadline; ) {
    const connected = await new Promise((resolve) => {
      const socket = net.connect(port, "127.0.0.1");
      socket.on("connect", () => resolve(true)).on("error", () => resolve(false));
      socket.on("connect", () => socket.destroy());
    });
    if (connected) return;
    await sleep(LOOK_MS);
  }
  throw new Error(`nothing listens on port ${port}`);
}

/** Tells that the server is ready. */
function ready(facts) {
  console.log(JSON.stringify(facts));
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Returns processes and all their descendants (proc(5)). */
function tree(pids) {
  const all = [...pids];
  for (let at = 0; at < all.length; at++) {
    try {
      for (const task of fs.readdirSync(`/proc/${all[at]}/task`)) {
        const children = fs.readFileSync(`/proc/${all[at]}/task/${task}/children`, "utf8");
        all.push(...children.split(" ").filter(Boolean).map(Number));
      }
    } catch {
      // It has ended.
    }
  }
  return all;
}

/** Sends a signal and returns the processes that are still there. */
function signal(pids, name) {
  return pids.filter((pid) => {
    try {
      return process.kill(pid, name);
    } catch {
      return false;
    }
  });
}

let ending = false;

/** Ends all programs and this one: first they are asked to, then they are not. */
async function end(code, why) {
  if (ending) return;
  ending = true;
  if (why) console.error(String(why));
  const all = tree(roots);
  signal(roots, "SIGTERM");
  for (const deadline = Date.now() + END_MS; Date.now() < deadline && signal(all, 0).length; ) {
    await sleep(LOOK_MS);
  }
  signal(all, "SIGKILL");
  process.exit(code);
}

process.stdin.on("end", () => end(0)).resume();
process.on("SIGTERM", () => end(0));
process.on("unhandledRejection", (error) => end(1, error));
process.on("uncaughtException", (error) => end(1, error));

module.exports = { freePort, listening, ready, run };
