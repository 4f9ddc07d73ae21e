"""Chat JSONL learns the form of its replies through every door: a file on the command line, and a job of the server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import TEXTS

from fingerpost.core.errors import InputError
from fingerpost.data.chat import read_chat
from fingerpost.data.rows import Columns
from fingerpost.evaluation.file import evaluate_file
from fingerpost.students import load
from fingerpost.training.dataset import from_chat, from_file
from fingerpost.training.train import train

SYSTEM = "Route the message.\n- 0: billing: invoices\n- 1: delivery: parcels\n- 2: other: anything else"
BEFORE = "Here is what the customer wrote to us today: "


def write_chat(file: Path, start: int = 0, end: int = 10) -> Path:
    lines = []
    for code, texts in enumerate(TEXTS.values()):
        for text in texts[start:end]:
            turns = [("system", SYSTEM), ("user", BEFORE + text), ("assistant", f"<label>{code}</label>")]
            lines.append(json.dumps({"messages": [{"role": role, "content": content} for role, content in turns]}))
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_file_keeps_the_reply_form_the_user_template_and_the_system_prompt(tmp_path: Path) -> None:
    data = from_file(write_chat(tmp_path / "chat.jsonl"), Columns())
    assert data.reply_template is not None
    assert (data.reply_template.before, data.reply_template.after) == ("<label>", "</label>")
    assert data.reply_template.codes and data.task.names == ["billing", "delivery", "other"]
    assert data.user_template.before == BEFORE and data.system == SYSTEM
    assert all(BEFORE not in example.messages[-1].content for example in data.train)


def test_the_command_line_and_a_job_read_the_same(tmp_path: Path) -> None:
    file = write_chat(tmp_path / "task.jsonl")
    assert replace(from_file(file, Columns()), trained_from={}) == from_chat("task", read_chat(file))


@pytest.mark.slow
def test_trained_evaluated_and_loaded(tmp_path: Path) -> None:
    data = from_file(write_chat(tmp_path / "chat.jsonl", end=8), Columns())
    manifest = train(data, tmp_path / "model", epochs=0)
    assert manifest.reply_template == data.reply_template and manifest.system == SYSTEM
    report, _, rows = evaluate_file(write_chat(tmp_path / "test.jsonl", start=8), [tmp_path / "model"], Columns())
    assert len(rows) == 6 and {row.gold for row in rows} == set(TEXTS)
    student = next(model for model in report.models if model.role == "student")
    assert student.accuracy is not None and student.accuracy > 0.5
    assert load(tmp_path / "model").manifest.user_template.before == BEFORE


def test_rows_with_a_label_column_are_no_fine_tuning_data(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": text}], "label": label}
        for label, texts in TEXTS.items()
        for text in texts
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert from_file(file, Columns()).reply_template is None


def test_free_text_is_refused_with_the_reason(tmp_path: Path) -> None:
    file = tmp_path / "free.jsonl"
    turns = [[("user", f"question {i}"), ("assistant", f"a long answer {i * 7919}")] for i in range(12)]
    file.write_text(
        "".join(json.dumps({"messages": [{"role": r, "content": c} for r, c in turn]}) + "\n" for turn in turns)
    )
    with pytest.raises(InputError, match="free text"):
        from_file(file, Columns())
