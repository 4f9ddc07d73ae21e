"""Runs of the command line: in this process, which is cheap, or in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeAlias

import pytest

Cli: TypeAlias = Callable[..., "CompletedProcess[str]"]
"""`cli(*arguments, cwd=FOLDER, stdin="", **environment)`: the exit code and what was printed."""

HOUR = 3600
"""Seconds after which a subprocess counts as hung. Far above what a slow, busy machine needs."""


def run_in_process(
    arguments: tuple[str, ...], cwd: Path, stdin: str, environment: Mapping[str, str]
) -> CompletedProcess[str]:
    """Call `fingerpost.cli.main` as the installed command does. Standard input is not a terminal."""
    from fingerpost.cli import main

    stdout, stderr = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["fingerpost", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        for name, value in {"COLUMNS": "80", **environment}.items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    returncode = code if isinstance(code, int) else int(code is not None)
    return CompletedProcess(arguments, returncode, stdout.getvalue(), stderr.getvalue())


def run_subprocess(
    arguments: tuple[str, ...], cwd: Path, stdin: str, environment: Mapping[str, str]
) -> CompletedProcess[str]:
    """Run `python -m fingerpost` in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "fingerpost", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        input=stdin,
        timeout=HOUR,
    )
