"""Which processes are alive that hold leases: each locks a file of its own, and the system unlocks it when the process ends."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


def is_held(file: Path) -> bool:
    """Whether a process that runs holds the lock of this file."""
    if not file.is_file():
        return False
    lock = FileLock(file, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


class LeaseHolders:
    """The processes that use a database. A process joins when `own` is read for the first time.

    Args:
        database: the lock files are in a folder beside it.
    """

    def __init__(self, database: Path) -> None:
        self._folder = database.with_name(f"{database.name}.holders")
        self._own: tuple[str, FileLock] | None = None
        self._joining = threading.Lock()

    @property
    def own_id(self) -> str:
        """The name of this process, valid until `close`."""
        with self._joining:
            if self._own is None:
                name = secrets.token_hex(8)
                self._folder.mkdir(mode=0o700, exist_ok=True)
                lock = FileLock(self._folder / name, thread_local=False)
                lock.acquire()
                self._own = (name, lock)
            return self._own[0]

    def is_alive(self, name: str) -> bool:
        """Whether the process of this name still runs and has not left. The file of a dead one is deleted."""
        if self._own is not None and name == self._own[0]:
            return True
        file = self._folder / name
        if is_held(file):
            return True
        with suppress(OSError):  # another process may be looking at it
            file.unlink(missing_ok=True)
        return False

    def close(self) -> None:
        """Leave: what this process still holds counts as left behind."""
        with self._joining:
            if self._own is not None:
                name, lock = self._own
                lock.release()
                with suppress(OSError):
                    (self._folder / name).unlink()
                self._own = None
