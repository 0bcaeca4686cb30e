"""The service under test: the binary named by `HOOKWIRE_BIN`, started with a configuration file of its own."""

import atexit
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from .waiting import DEADLINE_SECONDS

PRIMARY_KEY = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH"
SECONDARY_KEY = "hgfedcba9876543210zyxwvutsrqponmlkjihgfedcba"

LOG_BYTES_MAX = 64 * 1024
"""Bytes of the service's log that are kept for the message of a failure."""

STOP_SECONDS_MAX = 40.0
"""How long the service may take to end; it gives itself 20 s for its last events."""

_running: set[subprocess.Popen] = set()


@atexit.register
def _end_what_runs() -> None:
    for process in list(_running):
        process.kill()


def binary() -> Path:
    """Returns the path of the binary."""
    path = os.environ.get("HOOKWIRE_BIN")
    if not path:
        raise RuntimeError("set HOOKWIRE_BIN to the path of the hookwire binary (cargo build --bin hookwire)")
    if not os.access(path, os.X_OK):
        raise RuntimeError(f"HOOKWIRE_BIN names {path}, which is not there or cannot be executed")
    return Path(path).resolve()


class Service:
    """A running service. `configuration` is TOML; what stands in it before the first table are further top-level keys."""

    def __init__(self, configuration: str = "") -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hookwire-compat-"))
        file = self.folder / "hookwire.toml"
        file.write_text(
            'listen = ["127.0.0.1:0"]\n'
            f"access_keys = {json.dumps([PRIMARY_KEY, SECONDARY_KEY])}\n"
            f"data_dir = {json.dumps(str(self.folder / 'data'))}\n"
            f"{configuration}\n",
            encoding="utf-8",
        )
        self._log = self.folder / "log"
        # Variables with this prefix are settings of the service.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOOKWIRE_")}
        environment["HOOKWIRE_LOG"] = "debug,hyper_util=info"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [binary(), "serve", "--config", file, "--json"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        _running.add(self._process)
        try:
            ready = json.loads(self._first_line())
        except BaseException:
            self.clear()
            raise
        [self.address, *_] = ready["listen"]
        self.connection_string = ready["connection_string"]

    def _first_line(self) -> bytes:
        lines: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=lambda: lines.put(self._process.stdout.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=DEADLINE_SECONDS)
        except queue.Empty:
            line = b""
        if not line:
            raise AssertionError(f"the service was not ready ({self._process.poll()}):\n{self.log}")
        return line

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def log(self) -> str:
        """The end of the service's log."""
        return self._log.read_bytes()[-LOG_BYTES_MAX:].decode(errors="replace")

    def stop(self) -> int:
        """Ends the service as an operator does and returns its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_SECONDS_MAX)
        _running.discard(self._process)
        return code

    def clear(self) -> None:
        """Leaves nothing behind, however it went: no process, no folder."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(DEADLINE_SECONDS)
        _running.discard(self._process)
        self._process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)
