"""The library without the command line: docs/python.md runs, columns of any kind are taken, results are right."""

from __future__ import annotations

import copy
import gc
import pickle
import re
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from conftest import ROOT, TASK, TEXTS, write_labelled
from teacher import Teacher

import fingerpost

ROWS = [(text, label) for label, texts in TEXTS.items() for text in texts]


@pytest.fixture(scope="module")
def student(tiny_encoder: Path) -> Any:
    texts, labels = [text for text, _ in ROWS], [label for _, label in ROWS]
    return fingerpost.train(texts, labels, encoder=str(tiny_encoder), epochs=0)


@pytest.mark.slow
def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: Teacher) -> None:
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "tickets.csv")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "task.toml").write_text(TASK.format(base_url=teacher.base_url))
    page = (ROOT / "docs" / "python.md").read_text()
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert names["report"].n == 6
    assert names["trained"].folder == Path("shop/models/student")


@pytest.mark.parametrize(
    "column",
    [list, np.array, pandas.Series, polars.Series, tuple],
    ids=["list", "numpy", "pandas", "polars", "tuple"],
)
def test_columns_of_any_kind(student: Any, column: Any) -> None:
    texts, labels = column([text for text, _ in ROWS]), column([label for _, label in ROWS])
    report = fingerpost.evaluate([student], texts, labels)
    assert report.n == len(ROWS) and report.models[0].accuracy is not None and report.models[0].accuracy >= 0.8


def test_probabilities_and_classes(student: Any) -> None:
    texts = [text for text, _ in ROWS]
    rows = student.predict_proba(texts)
    assert rows.shape == (len(texts), 3) and np.allclose(rows.sum(axis=1), 1)
    assert list(student.classes_) == ["billing", "delivery", "other"]
    assert [student.classes_[i] for i in rows.argmax(axis=1)] == [found.label for found in student.predict(texts)]


def test_a_saved_student_answers_the_same(student: Any, tmp_path: Path) -> None:
    student.save(tmp_path / "copy")
    texts = [text for text, _ in ROWS]
    assert np.array_equal(fingerpost.load(tmp_path / "copy").predict_proba(texts), student.predict_proba(texts))


@pytest.mark.parametrize(
    ("texts", "labels", "hint"),
    [
        (["a", "b"], ["x"], "one label for each text"),
        ([], [], "no texts"),
        (["a", "b"], ["x", "x"], "at least two"),
        (["a", None], ["x", "y"], "row 2"),
        (["a", " "], ["x", "y"], "empty"),
    ],
)
def test_bad_input_is_one_clear_error(texts: list[Any], labels: list[Any], hint: str) -> None:
    with pytest.raises(fingerpost.FingerpostError, match=hint):
        fingerpost.train(texts, labels)


def test_the_report_shows_itself_in_a_notebook(student: Any) -> None:
    report = fingerpost.evaluate([student], [text for text, _ in ROWS], [label for _, label in ROWS])
    page = report._repr_html_()
    assert "<table" in page and student.name in page


def test_nothing_is_printed(student: Any, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[fingerpost.Progress] = []
    fingerpost.evaluate([student], ["where is it"], ["delivery"], on_progress=seen.append)
    assert capsys.readouterr() == ("", "") and seen


def test_one_text_gives_one_prediction(student: Any) -> None:
    text = ROWS[0][0]
    (expected,) = student.predict([text])
    one = student.predict(text)
    assert (one.label, one.confidence) == (expected.label, expected.confidence)
    assert student.predict(np.str_(text)).label == expected.label
    assert student.predict_proba(text).shape == (1, 3)
    assert student.predict([{"role": "user", "content": text}]).label == expected.label


def test_the_messages_of_openais_client_are_conversations(student: Any) -> None:
    text = ROWS[0][0]
    system, user = {"role": "system", "content": "Choose."}, {"role": "user", "content": text}
    parts = {"role": "user", "content": [{"type": "text", "text": text}]}
    given = [text, [user], [system, user], [parts], [fingerpost.Message("user", text)]]
    assert len({answer.label for answer in student.predict(given)}) == 1
    assert len(student.predict(text for text, _ in ROWS)) == len(ROWS)


@pytest.mark.parametrize(
    ("given", "part"),
    [
        (["fine", None], r"text \[1\] is None"),
        (["fine", float("nan")], r"text \[1\] is nan \(float\)"),
        (["fine", 3], r"text \[1\] is 3 \(int\)"),
        (["fine", b"bytes"], r"text \[1\] is bytes; decode"),
        (["fine", [{"role": "tool", "content": "x"}]], r"text \[1\] holds a message of the role 'tool'"),
        (["fine", [{"role": "user"}]], r"text \[1\] .* None as content"),
        (["fine", []], r"text \[1\] has no message"),
        ([["a", "b"]], r"text \[0\] holds 'a'"),
        (None, "None where texts are needed"),
        (5, "5 .int. where texts are needed"),
    ],
)
def test_every_bad_value_is_named_with_its_index(student: Any, given: Any, part: str) -> None:
    for method in (student.predict, student.predict_proba):
        with pytest.raises(fingerpost.FingerpostError, match=part):
            method(given)


def _label_in_worker(student: Any, text: str) -> str:
    return str(student.predict(text).label)


def test_a_loaded_model_is_sent_to_workers(student: Any, tmp_path: Path) -> None:
    student.save(tmp_path / "model")
    loaded = fingerpost.load(tmp_path / "model")
    content = pickle.dumps(loaded)
    shutil.rmtree(tmp_path / "model")
    restored = pickle.loads(content)
    assert [answer.label for answer in restored.predict([text for text, _ in ROWS])] == [
        answer.label for answer in student.predict([text for text, _ in ROWS])
    ]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_label_in_worker, restored, ROWS[0][0]).result() == student.predict(ROWS[0][0]).label
    assert copy.deepcopy(restored).predict(ROWS[0][0]).label == student.predict(ROWS[0][0]).label
    folder = restored.folder
    del restored
    gc.collect()
    assert not folder.exists()
