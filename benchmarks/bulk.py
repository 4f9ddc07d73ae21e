"""Throughput and peak memory of `fingerpost predict` on a million rows, compared with a tenth of the rows.

Usage: bulk.py MODEL [--rows 1000000] [--kind csv|jsonl|parquet] [--json OUT]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = [
    "please",
    "tell",
    "me",
    "about",
    "my",
    "order",
    "card",
    "holiday",
    "invoice",
    "parcel",
    "laptop",
    "password",
    "room",
    "today",
    "again",
    "thanks",
]


def measure(model: Path, rows: int, kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.csv", Path(scratch) / f"out.{kind}"
        with source.open("w") as stream:
            stream.write("text\n")
            for i in range(rows):
                stream.write(" ".join(WORDS[(i * 7 + j * (i % 13 + 1)) % len(WORDS)] for j in range(6)) + "\n")
        command = [sys.executable, "-m", "fingerpost", "predict", str(model), str(source), "-o", str(target)]
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0
        seconds = time.perf_counter() - began
    return {"rows": rows, "rows_a_second": rows / seconds, "peak_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", default="csv")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [measure(arguments.model, rows, arguments.kind) for rows in (arguments.rows // 10, arguments.rows)]
    for run in results:
        print(f"{run['rows']:>10,} rows   {run['rows_a_second']:8,.0f} rows/s   peak {run['peak_mb']:6.0f} MB")
    print(f"ratio of peak memory: {results[1]['peak_mb'] / results[0]['peak_mb']:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
