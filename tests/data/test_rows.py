from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.core.errors import InputError
from fingerpost.core.types import Label, Message
from fingerpost.data.files import columns, read_rows
from fingerpost.data.formats import FileFormat
from fingerpost.data.rows import Columns, LabelledRow, Rejected, column_labels, column_texts, read_labelled_rows
from fingerpost.data.writers import writing
from fingerpost.task.settings import Task

TASK = Task(name="t", labels=(Label(name="a", code=1), Label(name="b")))


def good(path: Path, chosen: Columns = Columns(), task: Task | None = None) -> list[LabelledRow]:
    return [row for row in read_labelled_rows(path, chosen, task) if isinstance(row, LabelledRow)]


def bad(path: Path, chosen: Columns = Columns(), task: Task | None = TASK) -> list[Rejected]:
    return [row for row in read_labelled_rows(path, chosen, task) if isinstance(row, Rejected)]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "txt"])
def test_all_kinds_of_files_give_the_same_texts(tmp_path: Path, kind: str) -> None:
    texts = ["first, with a comma", "second ünïcode", 'third "quoted"']
    file = tmp_path / f"data.{kind}"
    frame = polars.DataFrame({"Question": texts})
    if kind == "csv":
        frame.write_csv(file)
    elif kind == "tsv":
        frame.write_csv(file, separator="\t")
    elif kind == "jsonl":
        frame.write_ndjson(file)
    elif kind == "json":
        file.write_text(json.dumps([{"Question": text} for text in texts]))
    elif kind == "parquet":
        frame.write_parquet(file)
    else:
        file.write_text("\ufeff" + "\n\n".join(texts), encoding="utf-8")
    assert [row.messages[0].content for row in good(file)] == texts
    assert columns(file) == (["text"] if kind == "txt" else ["Question"])


def test_bad_rows_are_named_with_their_line_and_the_good_ones_kept(tmp_path: Path) -> None:
    file = tmp_path / "data.csv"
    long = "x" * 300_000
    file.write_bytes(
        b'text,label\nfine,a\n"two\nlines",b\nno comma\n,a\nbad \xff byte,a\nwrong,c\n'
        + "äöü,b\n".encode()
        + long.encode()
        + b",a\nlast,1\n"
    )
    assert [(row.messages[0].content, row.label) for row in good(file, task=TASK)] == [
        ("fine", "a"),
        ("two\nlines", "b"),
        ("äöü", "b"),
        ("last", "a"),
    ]
    reasons = {row.line: row.reason for row in bad(file)}
    assert list(reasons) == [5, 6, 7, 8, 10]
    assert "1 fields" in reasons[5] and "empty" in reasons[6] and "UTF-8" in reasons[7]
    assert "unknown label 'c'" in reasons[8] and "300,000 characters" in reasons[10]


def test_bad_lines_of_json_are_named(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"text": "f\xc3\xafne"}\nnot json\n[1]\n\n{"text": "\xff"}\n{"text": null}\n')
    assert len(good(file)) == 1
    assert [row.line for row in bad(file)] == [2, 3, 5, 6]


@pytest.mark.parametrize(
    ("answer", "label"), [('{"action": "a"}', "a"), ('{"action": 1}', "a"), ("b", "b"), ("Sure, done!", None)]
)
def test_chats_keep_their_turns_and_their_answer(tmp_path: Path, answer: str, label: str | None) -> None:
    chat = [
        {"role": "system", "content": "route"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes?"},
        {"role": "user", "content": [{"type": "text", "text": "friday off"}]},
        {"role": "assistant", "content": answer},
    ]
    file = tmp_path / "chat.jsonl"
    file.write_text(json.dumps({"messages": chat}))
    (row,) = good(file, task=TASK)
    assert row.messages == (
        Message("user", "hi"),
        Message("assistant", "yes?"),
        Message("user", "friday off"),
    )
    assert row.label == label


def test_rows_of_json_may_have_fields_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text('{"text": "one"}\n{"text": "two", "label": "a"}\n{"label": "a"}\n{"text": "half \\ud83d"}\n')
    assert [row.label for row in good(file)] == [None, "a"]
    assert [row.label for row in good(file, Columns(label="label"))] == [None, "a"]
    assert [row.line for row in bad(file)] == [3, 4]


def test_an_answer_in_the_tasks_form_with_an_unknown_label_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": '{"action": "fly"}'}]
    file.write_text(json.dumps({"messages": chat}))
    assert "unknown label" in bad(file)[0].reason


@pytest.mark.parametrize("content", ["", "a\nb\n"])
def test_files_and_columns_that_cannot_be_used(tmp_path: Path, content: str) -> None:
    with pytest.raises(InputError, match="there is no file"):
        read_rows(tmp_path / "none.csv")
    (tmp_path / "x.doc").write_text("x")
    with pytest.raises(InputError, match="unknown kind of file"):
        read_rows(tmp_path / "x.doc")
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(InputError, match="is empty" if not content else "no column named text"):
        list(read_labelled_rows(tmp_path / "x.csv", Columns(), None))
    (tmp_path / "x.parquet").write_text("PAR1 but not really")
    with pytest.raises(InputError, match="Parquet"):
        list(read_rows(tmp_path / "x.parquet"))
    (tmp_path / "y.csv").write_text("text,kind\na,b\n")
    with pytest.raises(InputError, match="no column 'intent'; name one of its columns with --label: text, kind"):
        list(read_labelled_rows(tmp_path / "y.csv", Columns(label="intent"), None))


def test_split_names(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text,split\na,train\nb,validation\nc,TEST\nd,\ne,excluded\n")
    assert [row.split for row in good(file)] == ["train", "dev", "test", None]
    assert "unknown split 'excluded'" in bad(file)[0].reason


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_written_files_read_back(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [{"text": f'row "{i}",\n', "confidence": i / 7} for i in range(5)]
    file = tmp_path / f"out.{kind}"
    with writing(file) as writer:
        writer.write(rows[:2])
        writer.write(rows[2:])
    read = [row.values for row in read_rows(file)]
    assert [row["text"] for row in read] == [row["text"] for row in rows]
    assert [float(row["confidence"]) for row in read] == pytest.approx([row["confidence"] for row in rows])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_columns_that_change_on_the_way(tmp_path: Path) -> None:
    with writing(tmp_path / "out.parquet") as writer:
        writer.write([{"a": None}])
        writer.write([{"a": "x", "b": 1}])
    assert [row.values for row in read_rows(tmp_path / "out.parquet")] == [{"a": None, "b": None}, {"a": "x", "b": 1}]
    with pytest.raises(InputError, match="same columns"), writing(tmp_path / "out.csv") as writer:
        writer.write([{"a": 1}])
        writer.write([{"a": 1, "b": 2}])


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), writing(tmp_path / "out.csv") as writer:
        writer.write([{"a": 1}])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="cannot write"), writing(tmp_path / "out.doc"):
        pass


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ('{"action": "get_payslip"}', "get_payslip"),
        ('{"code": 7}', "7"),
        ("billing", "billing"),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2}'),
    ],
)
def test_without_a_task_a_chats_answer_is_the_value_in_it(tmp_path: Path, answer: str, label: str) -> None:
    file = tmp_path / "chat.jsonl"
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": answer}]
    file.write_text(json.dumps({"messages": chat}))
    (row,) = read_labelled_rows(file, Columns(), None)
    assert not isinstance(row, Rejected)
    assert row.label == label


SEQUENCES = {
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "numpy": np.array,
    "numpy objects": lambda values: np.array(values, dtype=object),
    "pandas": pandas.Series,
    "pandas strings": lambda values: pandas.Series(values, dtype="string"),
    "pandas filtered": lambda values: pandas.Series(["x", *values])[1:],
    "polars": polars.Series,
}


@pytest.mark.parametrize("make", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_columns_of_any_library_are_read(make: Callable[[list[str]], Any]) -> None:
    assert column_texts(make(["my bill", "a bœx"])) == ["my bill", "a bœx"]
    assert column_labels(make(["billing", " other "])) == ["billing", "other"]


@pytest.mark.parametrize("make", [list, np.array, pandas.Series, polars.Series])
def test_numbers_are_labels(make: Callable[[list[int]], Any]) -> None:
    assert column_labels(make([3, 4])) == ["3", "4"]


@pytest.mark.parametrize(
    "values",
    [
        ["a", None],
        ["a", float("nan")],
        ["a", np.float32("nan")],
        np.array([1.0, np.nan]),
        pandas.Series(["a", None]),
        pandas.Series(["a", None], dtype="string"),
        pandas.Series(["a", "b"], dtype="category").reindex([0, 5]),
        pandas.Series([1.0, None]),
        polars.Series(["a", None]),
    ],
)
def test_missing_values_are_named_with_their_row(values: Any) -> None:
    for read in (column_texts, column_labels):
        with pytest.raises(InputError, match=r"^row [12] "):
            read(values)
    with pytest.raises(InputError, match="^row 2 has no label"):
        column_labels(values)


@pytest.mark.parametrize("value", ["", " ", "half \ud83d", "x" * 200_001, 3, b"bytes"])
def test_values_that_are_no_text(value: object) -> None:
    with pytest.raises(InputError, match="^row 2"):
        column_texts(["fine", value])


def test_a_single_string_is_no_column() -> None:
    with pytest.raises(InputError, match="sequence"):
        column_texts("my bill")
    with pytest.raises(InputError, match="empty label"):
        column_labels(["a", ""])


def test_rows_that_a_stray_quote_would_merge_are_named(tmp_path: Path) -> None:
    rows = [f"message {i} about {i * 7},a" for i in range(100)]
    rows[10], rows[60] = '"' + rows[10], rows[60].replace(",a", '",a')
    file = tmp_path / "x.csv"
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    (bad,) = [row for row in read_rows(file) if row.error]
    assert bad.line == 12 and "lines 12 and 62" in bad.error
    rows[60] = rows[60].replace('"', "")
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    (bad,) = [row for row in read_rows(file) if row.error]
    assert bad.line == 12 and "never closed" in bad.error


def test_a_stray_quote_in_the_header_is_an_error_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('text,"label\n' + "a,b\n" * 100)
    with pytest.raises(InputError, match="header in line 1"):
        list(read_rows(tmp_path / "x.csv"))


def test_without_quotes_every_line_is_a_row(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('text,label\n"my "phone,a\nit is 5" wide,b\na, b,c\n')
    assert ["--quote none" in row.error for row in read_rows(file)] == [True, False, False]
    found = list(read_rows(file, FileFormat(quotes=False)))
    assert [row.values.get("text") for row in found] == ['"my "phone', 'it is 5" wide', "a"]
    assert "3 fields" in found[2].error


@given(
    st.lists(
        st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r"), max_size=30),
        min_size=2,
        max_size=9,
    )
)
def test_what_a_csv_writer_wrote_is_read_whole(texts: list[str]) -> None:
    """Quotes, commas and line breaks in fields, as a spreadsheet writes them."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label", "more"])
            writer.writerows([text, "a", "b"] for text in texts)
        assert [row.values["text"] for row in read_rows(file)] == texts


def test_a_quote_inside_an_unquoted_field_is_a_character(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text('text,label\nmy 13" laptop is broken,a\nand my "phone,b\n')
    assert [row.values["text"] for row in read_rows(file)] == ['my 13" laptop is broken', 'and my "phone']


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_deep_nesting_is_an_error_of_the_row_or_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[" * 100_000)
    if name == "x.jsonl":
        assert [row.error for row in read_rows(tmp_path / name)] == ["not JSON: nested too deeply"]
    else:
        with pytest.raises(InputError, match="nested too deeply"):
            list(read_rows(tmp_path / name))
