"""A GGUF model file served by llama.cpp's own server, in a process that is started and ended here.

    with serving(Path("teacher.gguf")) as base_url: ...

The child ends when its standard input closes: also when the parent is killed.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from fingerpost.core.errors import MissingExtra, TeacherError

CONTEXT_TOKENS = 8192
_READY = "listening at "


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """The base URL of a server of this model, for as long as the context lasts.

    Raises:
        MissingExtra: xllamacpp is not installed.
        TeacherError: the file is missing or llama.cpp cannot load it.
    """
    if find_spec("xllamacpp") is None:
        raise MissingExtra("local-teacher", "a GGUF teacher")
    if not model.is_file():
        raise TeacherError(f"there is no model file {model}; correct 'gguf' in [teacher] of task.toml")
    child = subprocess.Popen(
        [sys.executable, "-m", "fingerpost.llm.gguf", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C is for the parent, which lets the requests in flight finish
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        address = next((line for line in child.stdout if line.startswith(_READY)), None)
        if address is None:
            raise TeacherError(f"llama.cpp cannot load {model}: is it a whole GGUF file, and is there memory for it?")
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
    import os
    import socket

    import xllamacpp

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1  # one slot: the prompt cache of one label order stays whole
    params.port = port
    params.hostnames = ["127.0.0.1"]
    params.cpuparams.n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    server = xllamacpp.Server(params)
    print(f"{_READY}{server.listening_address}", flush=True)
    sys.stdin.read()  # until the parent is gone; the server works in threads of its own
    del server


if __name__ == "__main__":
    _serve(sys.argv[1])
