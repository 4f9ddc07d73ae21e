"""Serves a GGUF model file with llama.cpp's server in a child process.

    with serving(Path("teacher.gguf")) as base_url: ...

The child exits when its standard input closes, so it also stops if the parent is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fingerpost.core.errors import MissingExtra, TeacherError
from fingerpost.core.utils import end_with_parent

CONTEXT_TOKENS = 8192
_READY = "listening at "


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a model while the context is open, and yield the base URL of its OpenAI-compatible API.

    Raises:
        MissingExtra: xllamacpp is not installed.
        TeacherError: the file is missing or llama.cpp cannot load it.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtra("local-teacher", "a GGUF teacher")
    if not model.is_file():
        raise TeacherError(f"there is no model file {model}; correct the path 'gguf' in [teacher] of task.toml")
    child = subprocess.Popen(
        [sys.executable, "-m", "fingerpost.llm.gguf", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C must not reach the child: the parent lets requests in flight finish
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        address = next((line for line in child.stdout if line.startswith(_READY)), None)
        if address is None:
            raise TeacherError(
                f"llama.cpp cannot load {model}; check that the GGUF file is complete and that it fits into memory"
            )
        yield address.removeprefix(_READY).strip() + "/v1"
    finally:
        child.stdin.close()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        child.stdout.close()


def _serve(model: str) -> None:
    """Serve a model in this process until standard input closes."""
    end_with_parent()
    import os
    import socket
    import threading

    import xllamacpp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1  # one slot, so that consecutive requests share the prompt cache
    params.port = port
    params.hostnames = ["127.0.0.1"]
    params.cpuparams.n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    server = xllamacpp.Server(params)
    print(f"{_READY}{server.listening_address}", flush=True)
    threading.Event().wait()  # the server runs in other threads


if __name__ == "__main__":
    _serve(sys.argv[1])
