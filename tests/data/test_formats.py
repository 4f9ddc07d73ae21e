"""Files as the world has them: encodings, delimiters, workbooks, and files that are something else than their name says."""

from __future__ import annotations

import gzip
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.core.errors import InputError
from fingerpost.data.files import delimiter_of_file, read_rows
from fingerpost.data.formats import UTF_8, FileFormat, delimiter_of, format_of_options, with_detected_encoding

GERMAN = "text;label\nWo ist mein Schlüssel für das Büro?;gebäude\nBekomme ich Überstunden bezahlt?;lohn\n"
TEXTS = {
    "windows-1252": GERMAN,
    "utf-16": GERMAN,
    "utf-16-le": GERMAN,
    "utf-16-be": GERMAN,
    "utf-32": GERMAN,
    "utf-8": GERMAN,
    "utf-8-sig": GERMAN,
    "windows-1250": "text;label\nGdzie jest moja paczka? Czekam już tydzień;dostawa\nZapłaciłem dwa razy, proszę;płatność\n",
    "windows-1251": "text;label\nГде моя посылка?;доставка\nЯ заплатил дважды;оплата\n",
    "shift_jis": "text;label\n荷物はどこですか;配送\n二重に請求されました;支払い\n",
    "gb18030": "text;label\n我的包裹在哪里？;物流\n我被重复扣款了;支付\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_the_encoding_is_recognised(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(TEXTS[encoding].encode(encoding))
    header, *expected = [line.split(";") for line in TEXTS[encoding].splitlines()]
    assert [row.values for row in read_rows(file)] == [dict(zip(header, line, strict=True)) for line in expected]


def test_a_few_damaged_lines_do_not_make_a_file_of_utf_8_something_else(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"text,label\n" + "schön,a\nmüde,b\n".encode() + b"kaputt \xfc,a\n")
    rows = list(read_rows(file))
    assert [row.values.get("text") for row in rows] == ["schön", "müde", None]
    assert (rows[2].line, "--encoding" in rows[2].error) == (4, True)


def test_a_single_umlaut_of_excel_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes(b"text,label\nhello,a\nMr M\xfcller,b\n")
    assert [row.values["text"] for row in read_rows(file)] == ["hello", "Mr Müller"]


def test_a_given_encoding_is_obeyed(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_bytes("text,label\nприве́т,a\n".encode("koi8-r", "replace"))
    assert next(iter(read_rows(file, FileFormat(encoding="koi8-r")))).values["text"] == "приве?т"


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x00", exclude_categories=["Cs"]), min_size=1))
def test_utf_8_is_always_taken_for_utf_8(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("x") / "x.txt"
    file.write_text(f"x{text}", encoding="utf-8")
    assert with_detected_encoding(file, FileFormat()).encoding == UTF_8


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised_where_texts_hold_others(separator: str, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    lines = [["id", "text", "label"], ["1", '"one, two; three, four"', "a"], ["2", '"five; six"', "b"], ["3", "x", "a"]]
    file.write_text("\n".join(separator.join(line) for line in lines) + "\n")
    assert delimiter_of_file(file, FileFormat()) == separator
    assert [row.values["label"] for row in read_rows(file)] == ["a", "b", "a"]


def test_one_column_needs_no_delimiter(tmp_path: Path) -> None:
    assert delimiter_of(["text\n", "hello, you\n", "well; yes\n", "no\n"]) == ","


def test_a_given_delimiter_is_obeyed_and_excels_own_line_read(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("text^label\na,b^x\n")
    assert next(iter(read_rows(file, FileFormat(delimiter="^")))).values == {"text": "a,b", "label": "x"}
    file.write_text("sep=;\ntext;label\na,b;x\nc;d;e\n")
    first, second = read_rows(file)
    assert first.values == {"text": "a,b", "label": "x"}
    assert second.line == 4


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"encoding": "klingon"}, "no encoding 'klingon'"),
        ({"encoding": "base64"}, "no encoding 'base64'"),
        ({"delimiter": ",,"}, "one character"),
        ({"delimiter": '"'}, "one character"),
        ({"quote": "all"}, "--quote takes"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], part: str) -> None:
    with pytest.raises(InputError, match=part):
        format_of_options(**options)


def test_a_workbook_is_read(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.create_sheet("data", 1)
    sheet = book["data"]
    for row in (["text", "label", None], ["wo ist meine Bestellung?", 3, "x"], [None, None, None], ["=1+1", 4.5, None]):
        sheet.append(row)
    book.save(tmp_path / "x.xlsx")
    rows = list(read_rows(tmp_path / "x.xlsx"))
    assert [(row.line, row.values["label"]) for row in rows] == [(2, 3), (4, 4.5)]
    assert rows[0].values == {"text": "wo ist meine Bestellung?", "label": 3}


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("x.csv", b"\x89PNG\r\n\x1a\n\x00\x00", "begins like a PNG image"),
        ("x.csv", b"PK\x03\x04\x14\x00", "rename it to .xlsx"),
        ("x.jsonl", b"PAR1\x15\x04", "rename it to .parquet"),
        ("x.csv", gzip.compress(b"text,label\n"), "unpack it"),
        ("x.txt", b"hello\x00world, this is text with one zero", "binary zeros"),
        ("x.xlsx", b"text,label\na,b\n", "as a workbook"),
        ("x.xlsx", b"PK\x03\x04 no archive", "as a workbook"),
    ],
)
def test_a_file_that_is_something_else_is_named(name: str, content: bytes, part: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=part):
        list(read_rows(tmp_path / name))
