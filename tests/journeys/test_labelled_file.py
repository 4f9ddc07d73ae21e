"""A data scientist with a labelled file: README's first block on a clean file, and a file with everything wrong with it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from journeys.files import rows, write
from journeys.shell import commands_of, run

pytestmark = pytest.mark.slow
GERMAN = {"book_holiday": "Urlaub", "get_payslip": "Gehaltsabrechnung", "find_contact": "Büro", "other": "Sonstiges"}


def test_readmes_first_block_ends_with_an_honest_score(tmp_path: Path) -> None:
    write(tmp_path / "tickets.csv", rows()[:300], ("text", "label"))
    write(tmp_path / "new.csv", [(text,) for text, _ in rows()[300:320]], ("text",))
    block = [line for line in commands_of("README.md") if "tickets.csv" in line or "models/tickets" in line][:3]
    trained, asked, labelled = (run(line, tmp_path) for line in block)
    assert trained.code == 0, trained.stderr
    count = len(rows()[:300])
    assert f"{count} rows, " in trained.stdout and "rows are held out to measure the model" in trained.stdout
    (score,) = re.findall(r"^tickets +(0\.\d+) \[(0\.\d+), (\d\.\d+)\]", trained.stdout, re.MULTILINE)
    assert 0.3 < float(score[1]) < float(score[0]) < float(score[2]), "a score with its interval"
    assert "TF-IDF + linear SVM" in trained.stdout, "beside a baseline"
    assert trained.stdout.splitlines()[-2].startswith("next: fingerpost predict models/tickets")
    assert asked.code == 0 and re.fullmatch(r"\w+\t0\.\d+\n", asked.stdout)
    assert labelled.code == 0
    with (tmp_path / "answers.csv").open() as stream:
        answers = list(csv.DictReader(stream))
    assert len(answers) == 20 and all(
        answer["predicted"] and 0 < float(answer["confidence"]) <= 1 for answer in answers
    )
    again = run("fingerpost evaluate models/tickets tickets.csv", tmp_path)
    assert again.code == 0 and f"tickets               {score[0]}"[:10] in again.stdout
    assert "rows that the model was trained on were left out" in again.stdout
    assert re.search(rf"^tickets +{re.escape(score[0])} ", again.stdout, re.MULTILINE), "the same rows, the same score"


def test_a_file_from_excel_with_every_fault(tmp_path: Path) -> None:
    """cp1252 with semicolons; names that differ in case; two labels in a cell; a text under two labels; rows without text."""
    clean = [(text, GERMAN.get(label, label)) for text, label in rows()[:200]]
    faulty = [(f"Grüße: {text}", label) for text, label in clean]
    faulty[3:6] = [(text, "URLAUB ") for text, _ in faulty[3:6]]
    faulty[10] = (faulty[11][0], "Sonstiges" if faulty[11][1] != "Sonstiges" else "Büro")
    faulty[20] = (faulty[20][0], "Urlaub|Büro")
    faulty[30] = ("", "Büro")
    write(tmp_path / "Anfragen.csv", faulty, ("Anfrage", "Ziel"), ";", "cp1252")
    told = run("fingerpost train Anfragen.csv", tmp_path)
    assert told.code == 2 and "name the text column with --text" in told.stderr.splitlines()[-1]
    trained = run("fingerpost train Anfragen.csv --text Anfrage --label Ziel", tmp_path)
    assert trained.code == 1, trained.stderr
    assert "read as windows-1252" in trained.stdout and "Büro" in trained.stdout
    assert "Anfragen.csv, line 32: the text is empty" in trained.stderr
    warnings = [line for line in trained.stderr.splitlines() if line.startswith("warning: ")]
    for words in (
        "'URLAUB'",
        "several labels, such as 'Urlaub|Büro'",
        "have more than one label",
        "fewer than",
    ):
        assert any(words in line for line in warnings), (words, warnings)
    predicted = run(
        "fingerpost predict models/Anfragen Anfragen.csv -o out.csv --top-k 2 --min-confidence 0.2", tmp_path
    )
    assert predicted.code == 1 and "line 32" in predicted.stderr
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as stream:
        answers = list(csv.DictReader(stream, delimiter=";"))
    assert [row["Anfrage"] for row in answers] == [text for text, _ in faulty], "every row in its place"
    assert answers[30]["predicted"] == "" and "the text is empty" in answers[30]["reason"]
    assert answers[0]["predicted"] and answers[0]["predicted_2"]
    piped = run("fingerpost predict models/Anfragen - < Anfragen.csv > piped.csv", tmp_path)
    assert piped.code == 1 and (tmp_path / "piped.csv").read_text(encoding="utf-8-sig").count("\n") == 201


def test_a_wrong_encoding_stops_before_training(tmp_path: Path) -> None:
    write(
        tmp_path / "x.csv",
        [(f"Grüße {text}", label) for text, label in rows()[:40]],
        ("text", "label"),
        encoding="cp1252",
    )
    told = run("fingerpost train x.csv --encoding ascii", tmp_path)
    assert told.code == 2 and "40 of 40 rows of x.csv cannot be used" in told.stderr and "--encoding" in told.stderr
    assert not (tmp_path / "models").exists()


def test_cross_validation_measures_on_all_rows(tmp_path: Path) -> None:
    write(tmp_path / "small.csv", rows()[:90], ("text", "label"))
    told = run("fingerpost train small.csv --cross-validate 2 --json report.json", tmp_path)
    assert told.code == 0, told.stderr
    assert "n = 90" in told.stdout and "2-fold cross-validation" in told.stdout
    assert "models/small is trained on all rows" in " ".join(told.stdout.split())
    assert '"n": 90' in (tmp_path / "report.json").read_text()
