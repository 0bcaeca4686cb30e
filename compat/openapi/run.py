#!/usr/bin/env python3
"""Holds the running service, the binary named by `HOOKWIRE_BIN`, against its own description.

    python3 compat/openapi/run.py [--venv FOLDER] [--seed SEED] [--examples NUMBER]

schemathesis reads `/api/openapi.json` and sends requests that fit it and requests that break it: every answer must be one that is
described, none a failure of the service. First hubs, users and connections are whatever comes to its mind, then those of clients that
are really there. The packages are installed into a virtual environment first, unless they are there already: exactly the files whose
hashes stand in `requirements.txt`. Exits with 0 only if nothing was found.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path

from signing import KEY, token

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER / "requirements.txt"
OLDEST_PYTHON = (3, 11)

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 40
RUN_SECONDS_MAX = 6 * 60


def main() -> int:
    arguments = argparse.ArgumentParser(description="Holds the hookwire binary against its description.")
    arguments.add_argument(
        "--venv",
        type=Path,
        default=FOLDER.parent.parent / "target" / "compat-openapi",
        help="folder below which the virtual environment stands (default: target/compat-openapi)",
    )
    arguments.add_argument("--seed", type=int, default=1, help="other requests for another number")
    arguments.add_argument("--examples", type=int, default=30, help="random requests for each operation and kind")
    options = arguments.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        print("Python {}.{} or newer is needed".format(*OLDEST_PYTHON), file=sys.stderr)
        return 1
    if not os.environ.get("HOOKWIRE_BIN"):
        print("set HOOKWIRE_BIN to the path of the hookwire binary (cargo build --bin hookwire)", file=sys.stderr)
        return 1
    binary = Path(os.environ["HOOKWIRE_BIN"]).resolve()
    st = install(options.venv.resolve()) / "st"
    with tempfile.TemporaryDirectory(prefix="hookwire-openapi-") as folder:
        service, origin = start(binary, Path(folder))
        try:
            run = Run(st, origin, Path(folder), options)
            anybody = run.once("anybody", {}, [])
            with client(origin, "ann"), client(origin, "bob"):
                ids = ask(origin, "/admin/v1/hubs/chat/users/ann/connections")["items"]
                there = {"hub": "chat", "group": "staff", "path.userId": "ann", "connectionId": ids[0]["id"]}
                # What would send the clients away is left out.
                kept = ["--exclude-path-regex", ":closeConnections", "--exclude-operation-id", "closeConnection"]
                those_there = run.once("those who are there", there, kept)
                found = {item["user"] for item in ask(origin, "/admin/v1/hubs/chat/connections")["items"]}
            assert found == {"ann", "bob"}, f"{found} are left of ann and bob"
        finally:
            service.terminate()
            status = service.wait(STOP_SECONDS_MAX)
    print(f"the service ended with {status}", flush=True)
    return 0 if anybody and those_there and status == 0 else 1


def install(folder: Path) -> Path:
    """Installs what `requirements.txt` names, unless that was done; returns the folder of its commands."""
    commands = folder / "venv" / "bin"
    stamp = folder / "installed"
    wanted = f"{sys.version}\n{sys.executable}\n{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}\n"
    if (commands / "st").exists() and stamp.exists() and stamp.read_text() == wanted:
        return commands
    print(f"installing the packages into {folder}", flush=True)
    stamp.unlink(missing_ok=True)
    venv.create(folder / "venv", clear=True, with_pip=True)
    pip = [commands / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "-r", REQUIREMENTS], check=True)
    stamp.write_text(wanted)
    return commands


def start(binary: Path, folder: Path) -> tuple[subprocess.Popen, str]:
    """Starts the service on a port of its own; returns it and its origin."""
    file = folder / "hookwire.toml"
    file.write_text(
        'listen = ["127.0.0.1:0"]\n'
        f"access_keys = [{json.dumps(KEY)}]\n"
        f"data_dir = {json.dumps(str(folder / 'data'))}\n"
        # The clients do not answer pings.
        f"limits.ping_interval_seconds = {RUN_SECONDS_MAX}\n",
        encoding="utf-8",
    )
    # Variables with this prefix are settings of the service.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOOKWIRE_")}
    environment["HOOKWIRE_LOG"] = "error"
    service = subprocess.Popen(
        [binary, "serve", "--config", file, "--json"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        address = json.loads(service.stdout.readline())["listen"][0]
    except BaseException:
        service.kill()
        raise
    return service, f"http://{address}"


def ask(origin: str, path: str) -> dict:
    headers = {"Authorization": f"Bearer {token(origin + path)}"}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(origin + path, headers=headers), timeout=START_SECONDS_MAX) as answer:
        return json.load(answer)


def client(origin: str, user: str) -> socket.socket:
    """Connects a simple client and leaves it alone: what it is sent stays with the system."""
    host = origin.removeprefix("http://")
    name, port = host.rsplit(":", 1)
    path = "/client/hubs/chat"
    proof = token(origin + path, sub=user, **{"webpubsub.group": "staff"})
    connection = socket.create_connection((name, int(port)), timeout=START_SECONDS_MAX)
    connection.sendall(
        f"GET {path}?access_token={proof} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = connection.recv(4_096)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return connection


class Run:
    """How schemathesis is run."""

    def __init__(self, st: Path, origin: str, folder: Path, options: argparse.Namespace) -> None:
        self.origin = origin
        self.folder = folder
        self.command = [st, "--config-file", folder / "schemathesis.toml", "--no-color", "run"]
        self.options = ["--seed", str(options.seed), "--max-examples", str(options.examples), "--generation-database", "none"]
        self.options += ["--request-timeout", "30", "--continue-on-failure"]
        # That much is not there when it makes names up is no news.
        self.options += ["--warnings", "off", "--checks", "all"]
        # Its answer has no end.
        self.options += ["--exclude-operation-id", "followEvents"]
        # What is made up here must not become an upstream.
        self.options += ["--exclude-operation-id", "setHubSettings"]
        self.environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "hooks",
            "PYTHONPATH": str(FOLDER),
            "PYTHONDONTWRITEBYTECODE": "1",
            # Nothing here may leave this machine, whatever proxy the machine is set up with.
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def once(self, name: str, parameters: dict[str, str], options: list[str]) -> bool:
        """Runs every operation, with these values for parameters; returns whether nothing was found."""
        print(f"== {name}", flush=True)
        values = "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in parameters.items())
        (self.folder / "schemathesis.toml").write_text(f"[parameters]\n{values}", encoding="utf-8")
        description = f"{self.origin}/api/openapi.json"
        command = [*self.command, description, *self.options, *options]
        run = subprocess.run(command, cwd=self.folder, env=self.environment, timeout=RUN_SECONDS_MAX)
        return run.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
