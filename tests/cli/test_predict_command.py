"""predict: what it reads from standard input, what it adds to a file, and what goes where."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import HOUR, Cli


def predict(student: Path, *arguments: str, given: bytes = b"") -> tuple[int, str, str]:
    command = [sys.executable, "-m", "fingerpost", "predict", str(student), *arguments]
    run = subprocess.run(command, input=given, capture_output=True, timeout=HOUR)
    return run.returncode, run.stdout.decode(), run.stderr.decode()


def test_the_answers_are_on_standard_output_while_a_terminal_shows_the_bar(student: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text\nmy invoice is wrong\n")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fingerpost", "predict", str(student), "x.csv", "-o", "-"]
    run = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs, timeout=HOUR)
    os.close(theirs)
    os.close(ours)
    assert run.returncode == 0 and run.stdout.startswith(
        b"text,predicted,confidence,reason\nmy invoice is wrong,billing,"
    )


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (b"Hello,\nwhere is my parcel?\n", "Hello,"),
        (b"\n\nwhere is my parcel?\n", "where is my parcel?"),
        (b"question\n", "question"),
        ("Grüße, wo ist mein Paket?\n".encode("utf-16"), "Grüße, wo ist mein Paket?"),
        ("\ufeffGrüße\n".encode(), "Grüße"),
    ],
)
def test_lines_of_text(student: Path, given: bytes, first: str) -> None:
    code, printed, errors = predict(student, "-", given=given)
    assert code == 0, errors
    assert printed.splitlines()[0].split("\t")[2] == first


def test_a_named_encoding_of_standard_input(student: Path) -> None:
    code, printed, _ = predict(student, "-", "--encoding", "windows-1252", given=b"caf\xe9\n")
    assert code == 0 and printed.rstrip().endswith("café")


def test_csv_and_json_lines_keep_their_form(student: Path) -> None:
    _, printed, _ = predict(student, "-", given=b'{"text": "my invoice is wrong", "id": 7}\n')
    assert json.loads(printed) | {"confidence": 0} == {
        "text": "my invoice is wrong", "id": 7, "predicted": "billing", "confidence": 0, "reason": None,
    }  # fmt: skip
    code, printed, _ = predict(student, "-", given=b"id;text\n1;my invoice is wrong\n2;\n")
    rows = list(csv.DictReader(io.StringIO(printed), delimiter=";"))
    assert code == 1 and [row["predicted"] for row in rows] == ["billing", ""] and "empty" in rows[1]["reason"]


def test_columns_of_the_file_are_never_overwritten(student: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "x.csv").write_text("text,reason,confidence\nmy invoice is wrong,customer angry,high\n")
    assert cli("predict", str(student), "x.csv", "-o", "out.csv", cwd=tmp_path).returncode == 0
    (row,) = csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    assert (row["reason"], row["confidence"], row["predicted"]) == ("customer angry", "high", "billing")
    assert float(row["fingerpost_confidence"]) > 0 and row["fingerpost_reason"] == ""


def test_scores_and_the_next_labels(student: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "x.csv").write_text("text\nmy invoice is wrong\nsing me a song\n")
    options = ("--top-k", "3", "--scores", "--min-confidence", "0.99", "--fallback", "person")
    assert cli("predict", str(student), "x.csv", "-o", "out.csv", *options, cwd=tmp_path).returncode == 0
    for row in csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())):
        scores = {label: float(row[f"score_{label}"]) for label in ("billing", "delivery", "other")}
        assert sum(scores.values()) == pytest.approx(1, abs=0.01)
        unsure = float(row["confidence"]) < 0.99
        assert (row["predicted"] == "person") == unsure and ("below 0.99" in row["reason"]) == unsure
        best = sorted(scores, key=scores.__getitem__, reverse=True)
        assert [row["predicted_2"], row["predicted_3"]] == (best[:2] if unsure else best[1:])


def test_a_file_without_rows_has_no_predictions(student: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "x.csv").write_text("text\n")
    ended = cli("predict", str(student), "x.csv", "-o", "out.csv", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (0, "out.csv: 0 predictions\n")


def test_two_files_are_not_taken_for_texts(student: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli("predict", str(student), "a.csv", "b.csv", "-o", "out.csv", cwd=tmp_path)
    assert ended.returncode == 2 and "-o takes the answers to one file" in ended.stderr
