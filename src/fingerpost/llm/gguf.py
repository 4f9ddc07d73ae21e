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
def serving(model: Path, adapter: Path | None = None, slots: int = 1) -> Iterator[str]:
    """Serve a model while the context is open, and yield the base URL of its OpenAI-compatible API.

    Args:
        adapter: a LoRA adapter for the model, as a GGUF file.
        slots: requests that are answered at the same time. One is best for a teacher: its requests share the prompt cache.

    Raises:
        MissingExtra: xllamacpp is not installed.
        TeacherError: the file is missing or llama.cpp cannot load it.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtra("local-teacher", "a GGUF teacher")
    if not model.is_file():
        raise TeacherError(f"there is no model file {model}; correct the path 'gguf' in [teacher] of task.toml")
    child = subprocess.Popen(
        [sys.executable, "-m", "fingerpost.llm.gguf", str(model), str(slots), *([str(adapter)] if adapter else [])],
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


def _serve(model: str, slots: str, adapter: str | None = None) -> None:
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
    params.n_ctx = CONTEXT_TOKENS * int(slots)
    params.n_parallel = int(slots)
    if adapter is not None:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = adapter, 1.0
        params.lora_adapters = [lora]
    params.port = port
    params.hostnames = ["127.0.0.1"]
    params.cpuparams.n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    server = xllamacpp.Server(params)
    print(f"{_READY}{server.listening_address}", flush=True)
    threading.Event().wait()  # the server runs in other threads


if __name__ == "__main__":
    _serve(*sys.argv[1:])
