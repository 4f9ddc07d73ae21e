"""How long does it take to import a few rows into a large project?

Usage: import_rows.py [STORED] [ROWS]

Makes a project of STORED made-up questions (default 50,000) in a temporary folder, imports ROWS more (default 10), of
which every second is a near-duplicate of a stored one, and prints the wall-clock and CPU seconds of that import.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from fingerpost.core.types import Label
from fingerpost.data.importer import import_file
from fingerpost.store.project import Store
from fingerpost.task.settings import Task

TASK = Task(name="benchmark", labels=(Label(name="a"), Label(name="b")))


def texts(count: int, seed: int) -> list[str]:
    """Sentences of 6 to 14 made-up words."""
    draw = random.Random(seed)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 8))) for _ in range(5_000)]
    return [" ".join(draw.choices(words, k=draw.randint(6, 14))) for _ in range(count)]


def measure(store: Store, file: Path, rows: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of importing these rows."""
    file.write_text("".join(f"{row}\n" for row in rows))
    wall, cpu = time.perf_counter(), time.process_time()
    import_file(store, TASK, file)
    return time.perf_counter() - wall, time.process_time() - cpu


def main(stored: int = 50_000, rows: int = 10) -> None:
    first = texts(stored, seed=0)
    new = [f"{first[row]} today" if row % 2 else text for row, text in enumerate(texts(rows, seed=1))]
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "fingerpost.db") as store:
        wall, cpu = measure(store, Path(folder) / "first.txt", first)
        print(f"first import of {stored:,} rows: {wall:.2f} s wall, {cpu:.2f} s CPU")
        wall, cpu = measure(store, Path(folder) / "new.txt", new)
        print(f"import of {rows:,} rows into {stored:,}: {wall:.2f} s wall, {cpu:.2f} s CPU")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
