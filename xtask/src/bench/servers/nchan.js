// nchan in nginx: its own publisher and its own subscribers, one channel that everybody is in.
const fs = require("fs");
const path = require("path");
const { freePort, listening, ready, run } = require("./children.js");

const MODULE = "/usr/lib/nginx/modules/ngx_nchan_module.so";

async function main() {
  const port = await freePort();
  const folder = path.join(__dirname, "nchan");
  fs.mkdirSync(folder, { recursive: true });
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  const configuration = path.join(folder, "nginx.conf");
  fs.writeFileSync(
    configuration,
    `load_module ${MODULE};
worker_processes 1;
worker_rlimit_nofile 20000;
daemon off;
pid ${folder}/nginx.pid;
error_log stderr error;
events {
  worker_connections 19000;
}
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join("\n  ")}
  nchan_max_reserved_memory 1024M;
  server {
    listen 127.0.0.1:${port} backlog=4096;
    location = / {
      nchan_subscriber websocket;
      nchan_channel_id all;
    }
    location = /pub {
      nchan_publisher http;
      nchan_channel_id all;
      nchan_message_buffer_length 0;
    }
  }
}
`,
  );
  const pid = run("/usr/sbin/nginx", ["-c", configuration, "-p", folder, "-e", "stderr"]);
  await listening(port);
  ready({ port, pid });
}

main();
