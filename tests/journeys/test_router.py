"""An engineer who routes messages with an LLM: a project, a teacher, a few reviews, a server, and a changed address."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from conftest import TEXTS, question_text
from teacher import Teacher
from tiny_encoder import tiny_encoder_folder

from journeys.files import write
from journeys.shell import run

pytestmark = pytest.mark.slow
PLACES = ["at home", "in the office", "on the train", "in town", "abroad", "tonight"]


@pytest.fixture
def project(tmp_path: Path, teacher: Teacher) -> Path:
    """A folder with a file of labels, and one of messages without labels."""
    write(tmp_path / "queues.csv", [("billing",), ("delivery",), ("other",)], ("queue",))
    texts = [f"{text} {place}" for all_texts in TEXTS.values() for text in all_texts for place in PLACES]
    write(
        tmp_path / "messages.csv", [(text,) for text in texts] + [(question_text(n),) for n in range(60)], ("message",)
    )
    return tmp_path


def test_from_messages_to_a_server(project: Path, teacher: Teacher) -> None:
    started = run(
        f"fingerpost init shop --from queues.csv --label queue --model test-model --base-url {teacher.base_url}",
        project,
    )
    assert started.code == 0 and "3 labels have no description" in started.stdout, started.stderr
    assert "next: fingerpost run shop" in started.stdout.splitlines()[-1]
    task = project / "shop" / "task.toml"
    content = task.read_text().replace(
        "[[data]]", "[student]\n" + f'encoder = "{tiny_encoder_folder().as_posix()}"\n\n[[data]]', 1
    )
    content = content.replace(
        'key_env = "OPENAI_API_KEY"', 'key_env = "OPENAI_API_KEY"\nprices = { input = 1.0, output = 4.0 }'
    )
    task.write_text(content[: content.index("[[data]]")])
    assert (
        run("fingerpost status shop", project)
        .stdout.splitlines()[-2]
        .startswith("next: fingerpost import FILE -C shop")
    )
    imported = run("fingerpost import shop messages.csv --text message", project)
    assert imported.code == 0 and "240 new questions" in imported.stdout
    assert "next: fingerpost label shop" in imported.stdout
    assert run("fingerpost label shop --budget 0.000001", project).code == 3, "above the budget nothing is sent"
    labelled = run("fingerpost label shop --budget 1", project)
    assert labelled.code == 0 and "240 labelled" in labelled.stdout, labelled.stderr
    assert "next: fingerpost train shop" in labelled.stdout
    trained = run("fingerpost train shop", project)
    assert trained.code == 0 and "next: fingerpost review shop --test" in trained.stdout, trained.stderr
    exported = run("fingerpost review shop --test 30 --export test.csv --by anna", project)
    assert exported.code == 0, exported.stderr
    with (project / "test.csv").open(encoding="utf-8-sig", newline="") as stream:
        cells = list(csv.DictReader(stream))
    assert len(cells) == 30 and not cells[0]["suggestion"], "a test sample shows no hints"
    named = {text: label for label, texts in TEXTS.items() for text in texts}
    for cell in cells:
        match = [label for text, label in named.items() if cell["text"].startswith(text)]
        cell["label"] = (match or [cell["text"].split()[0]])[0]
    cells[0]["label"], cells[1]["label"] = "refund", ""
    write(project / "filled.csv", [tuple(cell.values()) for cell in cells], tuple(cells[0]))
    back = run("fingerpost review shop --import filled.csv --by anna", project)
    assert back.code == 1 and "28 labels by anna stored" in back.stdout and "unknown label 'refund'" in back.stderr
    again = run("fingerpost review shop --import filled.csv --by anna", project)
    assert "0 labels by anna stored, 28 that you had given before" in again.stdout
    measured = run("fingerpost evaluate shop", project)
    assert measured.code == 0 and "test-model" in measured.stdout, measured.stderr
    assert "next: fingerpost review shop" in measured.stdout
    reviewed = run("fingerpost review shop", project, keys=["1", "2", "q"])
    assert reviewed.code == 0, reviewed.stderr
    _ask_the_server(project)
    forgotten = run(f'fingerpost forget "{question_text(0)}" -C shop --receipt receipt.json', project)
    assert forgotten.code == 0 and "1 questions" in forgotten.stdout and "1 logged requests" in forgotten.stdout
    assert json.loads((project / "receipt.json").read_text())["erased"]["labels"] >= 1
    left = b"".join(file.read_bytes() for file in (project / "shop").rglob("*") if file.is_file())
    assert question_text(0).encode() not in left, "not a byte of it is left"


def _ask_the_server(project: Path) -> None:
    """Ask through the official client, with only the address changed."""
    server = subprocess.Popen(
        [sys.executable, "-m", "fingerpost", "serve", "shop", "--port", "0"],
        cwd=project, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip().removeprefix("OPENAI_BASE_URL=")
        client = openai.OpenAI(base_url=address, api_key="none")
        messages = [{"role": "user", "content": question_text(0)}]
        answer = client.chat.completions.create(model="student", messages=messages)  # type: ignore[arg-type]
        assert json.loads(answer.choices[0].message.content or "") == {"action": "billing"}
    finally:
        server.terminate()
        server.communicate()
    assert server.returncode == 0
