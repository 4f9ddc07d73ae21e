"""Files as newcomers have them, made of the example's messages."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from conftest import ROOT

FOLDER = ROOT / "examples" / "hr-router" / "questions"


def rows() -> list[tuple[str, str]]:
    """(message, label) of the example's questions that have a human label."""
    found = []
    with (FOLDER / "synthetic.csv").open(encoding="utf-8") as stream:
        found += [(row["text"], row["label"]) for row in csv.DictReader(stream) if row["label"]]
    for line in (FOLDER / "user.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("label"):
            found.append((row["messages"][-1]["content"], row["label"]))
    return found


def write(
    file: Path, items: list[tuple[str, ...]], names: tuple[str, ...], delimiter: str = ",", encoding: str = "utf-8"
) -> Path:
    with file.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(items)
    return file
