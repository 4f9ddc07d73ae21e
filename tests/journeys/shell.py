"""Runs the commands of README and docs as a user types them: at a terminal, in a folder with the files that they name."""

from __future__ import annotations

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path

from command_line import HOUR
from conftest import ROOT

BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
KEYS = {"review": "q", "init": "\n"}
"""What is typed: by command; to the others, `y` and Enter, which confirms a price."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it printed."""

    command: str
    code: int
    stdout: str
    stderr: str


def commands_of(page: str) -> list[str]:
    """The lines that begin with `$` in the console blocks of a page, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line[2:] for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def run(command: str, folder: Path, environment: Mapping[str, str] | None = None, keys: Sequence[str] = ()) -> Ended:
    """Run a command line in a shell, with a terminal as standard input unless the line redirects it.

    One of `keys` is typed every second, and the last one until the command ends.

    A server is stopped as soon as it serves.
    """
    words = shlex.split(command)
    assert words[0] == "fingerpost", command
    line = f"{shlex.quote(sys.executable)} -m fingerpost {command.removeprefix('fingerpost')}"
    serves = words[1] in ("serve", "ui")
    if serves:
        line += " --port 0"
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f"exec {line}"],
        cwd=folder, env={**os.environ, "COLUMNS": "100", **(environment or {})}, stdin=theirs,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    typed = keys or [KEYS.get(words[1], "y\n")]

    def type_keys() -> None:
        for keystroke in chain(typed, repeat(typed[-1])):
            if process.poll() is not None:
                return
            with suppress(OSError):
                os.write(ours, keystroke.encode())
            time.sleep(1)

    threading.Thread(target=type_keys, daemon=True).start()
    try:
        if serves:
            assert process.stdout is not None
            seen = ""
            while not ("keys: " in seen or "/ui/" in seen) and (part := process.stdout.readline()):
                seen += part
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=HOUR)
            return Ended(command, process.returncode, seen + rest, errors)
        out, errors = process.communicate(timeout=HOUR)
        return Ended(command, process.returncode, out, errors)
    finally:
        if process.poll() is None:
            process.kill()
        os.close(ours)
