#!/usr/bin/env python3
"""Runs the tests of the Python SDKs against the binary named by `HOOKWIRE_BIN`.

    python3 compat/web-pubsub-python/run.py [--venv FOLDER] [NAME ...]

The packages are installed into a virtual environment first, unless they are there already: exactly the files whose hashes stand in
`requirements.txt`. A NAME is a module, class or test, such as `tests.test_recovery`; without one everything runs. Exits with 0 only if
every test has passed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
REQUIREMENTS = FOLDER / "requirements.txt"
OLDEST_PYTHON = (3, 11)


def main() -> int:
    arguments = argparse.ArgumentParser(description="Runs the Python SDKs against the hookwire binary.")
    arguments.add_argument(
        "--venv",
        type=Path,
        default=FOLDER.parent.parent / "target" / "compat-python",
        help="folder below which the virtual environment stands (default: target/compat-python)",
    )
    arguments.add_argument("names", nargs="*", help="modules, classes or tests; all when left out")
    options = arguments.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        print("Python {}.{} or newer is needed".format(*OLDEST_PYTHON), file=sys.stderr)
        return 1
    if not os.environ.get("HOOKWIRE_BIN"):
        print("set HOOKWIRE_BIN to the path of the hookwire binary (cargo build --bin hookwire)", file=sys.stderr)
        return 1
    binary = Path(os.environ["HOOKWIRE_BIN"]).resolve()
    python = install(options.venv.resolve())
    environment = {
        **os.environ,
        "HOOKWIRE_BIN": str(binary),
        # Nothing here may leave this machine, whatever proxy the machine is set up with.
        "NO_PROXY": "*",
        "no_proxy": "*",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run([python, "-m", "lib", *options.names], cwd=FOLDER, env=environment).returncode


def install(folder: Path) -> Path:
    """Installs what `requirements.txt` names, unless that was done; returns the interpreter that has it."""
    python = folder / "venv" / "bin" / "python"
    stamp = folder / "installed"
    wanted = f"{sys.version}\n{sys.executable}\n{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}\n"
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    print(f"installing the packages into {folder}", flush=True)
    stamp.unlink(missing_ok=True)
    venv.create(folder / "venv", clear=True, with_pip=True)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", REQUIREMENTS],
        check=True,
    )
    stamp.write_text(wanted)
    return python


if __name__ == "__main__":
    sys.exit(main())
