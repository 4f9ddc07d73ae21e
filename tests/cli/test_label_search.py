"""The live search of a label: what matches, in which order, and on a terminal with keys."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest
from command_line import HOUR

from fingerpost.cli.label_search import ranked
from fingerpost.core.types import Label

NAMES = ["get_payslip", "book_holiday", "book_room", "holiday_balance", "card_payment_fee", "other"]
LABELS = [Label(name=name, description="days off" if "holiday" in name else "") for name in NAMES]
PROGRAM = """
from rich.console import Console
from fingerpost.cli.label_search import search_label
from fingerpost.core.types import Label
print("chosen", search_label([Label(name=f"label_{n}") for n in range(75)] + [Label(name="zebra")], Console()), flush=True)
"""


@pytest.mark.parametrize(
    ("query", "first", "others"),
    [
        ("bo", "book_holiday", ["book_room"]),
        ("ho", "holiday_balance", ["book_holiday"]),
        ("room", "book_room", []),
        ("PAYSLIP", "get_payslip", []),
        ("cpf", "card_payment_fee", []),
        ("days off", "book_holiday", ["holiday_balance"]),
    ],
)
def test_the_best_match_is_first(query: str, first: str, others: list[str]) -> None:
    found = [label.name for label in ranked(LABELS, query)]
    assert found[: 1 + len(others)] == [first, *others]


def test_no_query_shows_all_and_nonsense_shows_none() -> None:
    assert ranked(LABELS, "") == LABELS and ranked(LABELS, "qqq") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "chosen"),
    [(["z", "e", "\r"], "zebra"), (["7", "4", "\r"], "label_74"), (["z", "\x1b"], "None"), (["z", "\x03"], "None"),
     (["1", "\x1b[B", "\r"], "label_10"), (["q", "q", "\x7f", "\x7f", "z", "\r"], "zebra")],
)  # fmt: skip
def test_on_a_terminal(keys: list[str], chosen: str) -> None:
    ours, theirs = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    while b"label:" not in seen:
        seen += os.read(ours, 4_096)
    for key in keys:
        time.sleep(0.15)
        os.write(ours, key.encode())
    while b"chosen" not in seen or not seen.endswith(b"\n"):
        seen += os.read(ours, 4_096)
    assert run.wait(HOUR) == 0
    os.close(ours)
    assert f"chosen {chosen}" in seen.decode()
    assert "^[" not in seen.decode()
