from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from serving import ended, wait

from fingerpost.core.errors import InputError
from fingerpost.core.utils import chunks, is_loopback, locked

HOLD = """
import sys
from pathlib import Path
from fingerpost.core.utils import locked
with locked(Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_exclusive_between_processes_and_ends_with_its_holder(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin and holder.stdout
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="taken; wait"), locked(file, "taken; wait"):
            pass
    finally:
        holder.kill()
        holder.communicate()
    for _ in range(2):
        with locked(file, "taken; wait"):
            pass


def test_a_lock_is_released_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), locked(tmp_path / "lock", "taken"):
        raise RuntimeError
    with locked(tmp_path / "lock", "taken"), pytest.raises(InputError), locked(tmp_path / "lock", "taken"):
        pass


def test_batches_have_the_given_size() -> None:
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("url", "loopback"),
    [("http://localhost:1/v1", True), ("http://[::1]:1", True), ("http://example.org", False), (None, False)],
)
def test_loopback_urls(url: str | None, loopback: bool) -> None:
    assert is_loopback(url) is loopback


def test_a_child_ends_with_its_parent_even_while_it_works() -> None:
    code = "from fingerpost.core.utils import end_with_parent; end_with_parent(); print('up', flush=True)\nwhile True: pass"
    parent = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {code!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        child = int(running.stdout.readline())
        running.kill()
    wait(lambda: ended(child), 60)
