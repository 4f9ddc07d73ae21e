from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.core.errors import TaskError
from fingerpost.task.loader import load_task, task_of_labels
from fingerpost.task.template import render_task

GOOD = """\
name = "shop"
instructions = '''
Route
it.'''
fallback = "other"

[labels]
billing = "invoices"
delivery = { description = "parcels", code = 7 }
other = "rest"

[teacher]
model = "m"
orders = 2

[[data]]
file = "a.csv"

[[data]]
file = "b.csv"
source = "synthetic"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "task.toml"
    file.write_text(text)
    return file


def test_a_task_is_read_with_labels_in_order_and_codes(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, GOOD))
    assert task.names == ["billing", "delivery", "other"]
    assert [label.code for label in task.labels] == [None, 7, None]
    assert [data.source for data in task.data] == ["user", "synthetic"]


@pytest.mark.parametrize(
    ("old", "new", "line", "remedy"),
    [
        ("orders = 2", "order = 2", 14, "did you mean 'orders'?"),
        ("orders = 2", "orders = 0", 14, "greater than 0"),
        ("orders = 2", 'orders = "two"', 14, "valid integer"),
        ('fallback = "other"', 'fallback = "othr"', 5, "did you mean 'other'?"),
        ("code = 7", "kode = 7", 9, "did you mean 'code'?"),
        ('source = "synthetic"', "sauce = 1", 21, "did you mean 'source'?"),
        ('billing = "invoices"', 'billing = "invoices', 8, "double quotes"),
        ('billing = "invoices"', "billing = 5", 8, "valid string"),
        ('other = "rest"', 'Other = "rest"\nOTHER = "r"\nother = "x"', 11, "rename one"),
        ('billing = "invoices"', "billing = { code = 7 }", 9, "same code 7"),
        ('model = "m"', "", 12, "'teacher.model' is missing"),
        ('name = "shop"', 'name = "shop"\nprompt = "no.txt"', 2, "there is no file"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, line: int, remedy: str
) -> None:
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(TaskError) as caught:
        load_task(file)
    message = str(caught.value)
    assert f"line {line}" in message and remedy in message and "\n" not in message


def test_files_that_are_no_task(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="fingerpost init"):
        load_task(tmp_path / "task.toml")
    (tmp_path / "task.toml").write_bytes(b'name = "x"\n# \xff\n')
    with pytest.raises(TaskError, match="line 2: this is not UTF-8"):
        load_task(tmp_path / "task.toml")
    with pytest.raises(TaskError, match=r"\[labels\] table"):
        load_task(write(tmp_path, 'name = "x"\n'))


def test_ones_own_prompt_needs_a_place_for_the_labels(tmp_path: Path) -> None:
    file = write(tmp_path, 'prompt = "p.txt"\n' + GOOD)
    (tmp_path / "p.txt").write_text("Choose.")
    with pytest.raises(TaskError, match=r"line 1: .*\{labels\}"):
        load_task(file)
    (tmp_path / "p.txt").write_text("Choose:\n{labels}\n")
    assert load_task(file).prompt == "Choose:\n{labels}\n"


def test_what_init_writes_reads_back(tmp_path: Path) -> None:
    labels = {"card arrival?": 'says "where"', "b": "ü\n", "other": ""}
    text = render_task(
        "my task", labels, fallback="other", base_url="http://x/v1", data=[{"file": "a b.csv", "source": "user"}]
    )
    task = load_task(write(tmp_path, text))
    assert {label.name: label.description for label in task.labels} == labels
    assert task.fallback == "other" and task.teacher is not None and task.teacher.base_url == "http://x/v1"
    assert [data.file for data in task.data] == ["a b.csv"]


def test_a_task_of_labels_alone() -> None:
    task = task_of_labels("x", ["book_holiday", "other", "other"])
    assert [label.description for label in task.labels] == ["book holiday", "other"]
    with pytest.raises(TaskError, match="at least two"):
        task_of_labels("x", ["one", "one"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('name = "x"\n[labels]\na = "a"\nb = "b"\n["x]y"]\nz = 1\n', "line 5"),
        ('name = "x"\n[labels]\n"x]y" = 3\nb = "b"\n', "line 3"),
        ('name = "x"\n[labels]\na = "a"\nb = "b"\n[teacher]\nmodel = "m"\nbase_url = "http://[::1"\n', "line 7"),
        ('name = "x"\n[labels]\na = "a"\nb = "b"\n[teacher]\nmodel = "m"\nbase_url = "localhost:1"\n', "line 7"),
    ],
)
def test_brackets_in_keys_and_impossible_addresses_are_errors_with_their_line(
    tmp_path: Path, text: str, line: str
) -> None:
    (tmp_path / "task.toml").write_text(text)
    with pytest.raises(TaskError, match=line):
        load_task(tmp_path / "task.toml")
