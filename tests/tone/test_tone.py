"""A tone of voice from texts to a measured model, with a real tiny model and a teacher on a socket."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from articles import articles
from command_line import Cli
from teacher import Teacher
from tiny_generator import tiny_generator_folder

from fingerpost.core.errors import InputError, TaskError
from fingerpost.tone.evaluate import Written, detection_accuracy
from fingerpost.tone.judge import judge, key_of, tuned_first, write_page
from fingerpost.tone.project import ToneProject
from fingerpost.tone.requests import longest_shared_run, request_in
from fingerpost.tone.texts import Text, lint, read_texts


def prose(number: int) -> str:
    return articles(number + 1)[number]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("short", "Too short to show anything."),
        ("opening", "In today's fast-paced world, " + prose(1)),
        ("opening", "Certainly! " + prose(1)),
        ("transcript", "00:01 well so I think\n00:07 yes that is it\n00:12 right " + prose(1)),
        ("transcript", prose(1).replace(".", "").replace(",", "")),
        ("duplicate", prose(0) + " Indeed."),
        ("language", "Ich gestehe, der Hafen hat mir immer gefallen, und wer etwas anderes behauptet, der hat ihn nie im Winter gesehen, wenn alles ruht."),
        ("contact", prose(1) + " Write to jane@example.com."),
        ("contact", prose(1) + " Call +44 20 7946 0958 at night."),
        ("name", prose(1) + " So said Ezekiel."),
    ],
)  # fmt: skip
def test_what_would_be_learnt_by_mistake_is_left_out(kind: str, content: str) -> None:
    texts = [Text(f"{n}", prose(n)) for n in (0, 2, 3)] + [Text("bad", content)]
    kept, findings = lint(texts, ["Ezekiel"])
    assert [(one.kind, one.name) for one in findings] == [(kind, "bad")]
    assert len(kept) == 3


def test_long_texts_are_cut_between_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n} " + "word " * 200 + "end." for n in range(5)]
    (tmp_path / "a.md").write_text("\n\n".join(paragraphs))
    (tmp_path / "b.txt").write_text("Short.")
    found = read_texts(tmp_path)
    assert [text.name for text in found] == ["a.md#1", "a.md#2", "a.md#3", "b.txt"]
    assert "\n\n".join(text.content for text in found[:3]) == "\n\n".join(paragraphs)
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match="UTF-8"):
        read_texts(tmp_path)
    with pytest.raises(InputError, match="no text"):
        read_texts(tmp_path / "nowhere")


def test_a_request_that_quotes_the_text_is_not_used() -> None:
    text = "The old harbour never forgave the mayor for selling its last kettle to a goat."
    assert request_in('{"request": "Write about the harbour."}', text) == "Write about the harbour."
    assert request_in('{"request": "Say: the old harbour never forgave the mayor for selling"}', text) is None
    for raw in (None, "", "no json", '{"request": 3}', '{"request": ""}', "[]"):
        assert request_in(raw, text) is None
    assert longest_shared_run("a b c d", "x b c y") == 2 and longest_shared_run("", "a") == 0


def test_styles_that_differ_are_detection_accuracy_and_equal_ones_are_not() -> None:
    draw = random.Random(0)
    mine, yours = ["moor", "heath", "gloom", "dusk", "raven"], ["sun", "beach", "joy", "ball", "kite"]

    def text(words: list[str]) -> str:
        return " ".join(draw.choices([*words, "the", "of", "and"], k=40))

    apart = detection_accuracy([text(mine) for _ in range(30)], [text(yours) for _ in range(30)])
    same = detection_accuracy([text(mine) for _ in range(30)], [text(mine) for _ in range(30)])
    assert apart.value > 0.95 and same.low < 0.5 < same.high


def samples(count: int) -> list[Written]:
    return [Written(f"request {n} <b>", "author", f"prompted {n}", f"tuned {n} <script>") for n in range(count)]


def test_choices_are_counted_blind(tmp_path: Path) -> None:
    write_page(tmp_path / "compare.html", samples(12), ["the author's <i>"])
    page = (tmp_path / "compare.html").read_text()
    assert "<script>" in page and "tuned 3 &lt;script&gt;" in page and "<b>" not in page and "<i>" not in page
    order = tuned_first(12, 0)
    assert 0 < sum(order) < 12
    first = [page.index(f"tuned {n} ") < page.index(f"prompted {n}<") for n in range(12)]
    assert first == order
    key = re.search(r"key: (\"[^\"]+\")", page)
    assert key is not None
    choices = {f"pair{n + 1}": "first" if order[n] else "second" for n in range(10)} | {"pair11": "neither"}
    file = tmp_path / "choices.json"
    file.write_text(json.dumps({"key": json.loads(key[1]), "choices": choices}))
    tuned = [sample.tuned for sample in samples(12)]
    found = judge([file], tuned)
    assert (found.tuned, found.prompted, found.ties) == (10, 0, 1)
    assert found.p_value == pytest.approx(2 / 2**10)
    with pytest.raises(InputError, match="another comparison"):
        judge([file], tuned[:11])
    for content in ("[", "[1]", json.dumps({"key": json.loads(key[1]), "choices": {"pair99": "first"}})):
        file.write_text(content)
        with pytest.raises(InputError):
            judge([file], tuned)


def test_task_toml_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="tone init"):
        ToneProject.open(tmp_path)
    (tmp_path / "task.toml").write_text('kind = "text"\nname = "x"\ninstructions = "y"\n[student]\nbas = "z"\n')
    with pytest.raises(TaskError, match=r"student.bas(e|')"):
        ToneProject.open(tmp_path)
    (tmp_path / "task.toml").write_text('name = "x"\n[labels]\na = "b"\nc = "d"\n')
    with pytest.raises(TaskError, match='kind = "text"'):
        ToneProject.open(tmp_path)


@pytest.fixture
def voice(tmp_path: Path, teacher: Teacher) -> Path:
    (tmp_path / "articles").mkdir()
    for number, text in enumerate(articles(60)):
        (tmp_path / "articles" / f"{number:02}.txt").write_text(text)
    return tmp_path


@pytest.mark.slow
def test_from_texts_to_a_measured_voice(voice: Path, cli: Cli, teacher: Teacher) -> None:
    def tone(*arguments: str) -> Any:
        return cli("tone", *arguments, cwd=voice, OPENAI_API_KEY="sk-test")

    run = tone("init", "voice", "--texts", "articles", "--base", str(tiny_generator_folder()))
    assert run.returncode == 0 and (voice / "voice" / "task.toml").is_file(), run.stderr
    file = voice / "voice" / "task.toml"
    settings = f'base_url = "{teacher.base_url}"\nprices = {{ input = 1.0, output = 1.0 }}\n'
    file.write_text(file.read_text().replace("[student]", settings + "\n[student]"))
    run = tone("check", "voice")
    assert run.returncode == 0 and "60 of 60 texts" in run.stdout, run.stdout + run.stderr
    run = tone("train", "voice")
    assert run.returncode == 2 and "tone requests" in run.stderr
    run = tone("requests", "voice", "--yes", "--budget", "0.0000001")
    assert run.returncode == 3, run.stderr
    run = tone("requests", "voice", "--yes", "--budget", "5")
    assert run.returncode == 0 and "60 of 60 texts have a request" in run.stdout, run.stdout + run.stderr
    asked = len(teacher.bodies)
    assert asked == 60
    assert tone("requests", "voice", "--yes", "--budget", "5").returncode == 0
    assert len(teacher.bodies) == asked, "nothing is paid twice"
    lines = [json.loads(line) for line in (voice / "voice" / "pairs.jsonl").read_text().splitlines()]
    assert len(lines) == 60 and [turn["role"] for turn in lines[0]["messages"]] == ["system", "user", "assistant"]
    file.write_text(file.read_text() + "epochs = 1\n")
    run = tone("train", "voice")
    assert run.returncode == 0 and "general answers" in run.stdout, run.stderr
    run = tone("evaluate", "voice", "--max-samples", "10")
    assert run.returncode == 0 and "saw 10 texts of each" in run.stdout, run.stdout + run.stderr
    report = json.loads((voice / "voice" / "reports" / "tone.json").read_text())
    assert report["tests"] == 10 and report["tuned_loss"] < report["base_loss"]
    assert (voice / "voice" / "reports" / "compare.html").is_file()
    key = key_of([sample["tuned"] for sample in report["samples"]])
    (voice / "choices.json").write_text(json.dumps({"key": key, "choices": {"pair1": "first"}}))
    run = tone("count-choices", "voice", "choices.json")
    assert run.returncode == 0 and "sign test p = 1.0000" in run.stdout, run.stderr
