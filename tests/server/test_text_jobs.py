"""Fine-tuning jobs whose replies are no labels: a language model learns them, and answers streamed, with the official client."""

from __future__ import annotations

import csv
import io
import json
import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from openai import BadRequestError, OpenAI
from serving import Serving, wait
from smollm2 import smollm2
from tiny_generator import tiny_generator_folder, tiny_generator_gguf

SYSTEM = "You answer like a pirate."
EPOCHS = 5


def text_lines(count: int = 24, **more: Any) -> list[dict[str, Any]]:
    """Conversations whose replies all begin alike, and then say something that cannot be foreseen."""
    draw = random.Random(0)
    lines = []
    for number in range(count):
        word = "".join(draw.choices("abcdefg", k=5))
        reply = {"role": "assistant", "content": f"Arr, {word} is number {number}", **more}
        lines.append({"messages": [
            {"role": "system", "content": SYSTEM}, {"role": "user", "content": f"what is {word}?"}, reply,
        ]})  # fmt: skip
    return lines


def as_jsonl(lines: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def train(client: OpenAI, lines: list[dict[str, Any]], **more: Any) -> Any:
    """The ended job for these lines."""
    file = client.files.create(file=("train.jsonl", as_jsonl(lines)), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file.id, **more)
    return wait(lambda: (found := client.fine_tuning.jobs.retrieve(job.id)).finished_at and found)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("texts")
    with Serving(folder / "data", "--base", tiny_generator_folder()) as started:
        yield started


@pytest.fixture(scope="module")
def job(serving: Serving) -> Any:
    """A job that has trained on free text, with hyperparameters of its own."""
    settings = {"n_epochs": EPOCHS, "batch_size": 6, "learning_rate_multiplier": 4.0}
    found = train(serving.client(), text_lines(), suffix="pirate", seed=3,
                  method={"type": "supervised", "supervised": {"hyperparameters": settings}})  # fmt: skip
    assert found.status == "succeeded", found.error
    return found


def ask(client: OpenAI, model: str, **more: Any) -> Any:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "what is abcde?"}]
    return client.chat.completions.create(**{"model": model, "messages": messages, "max_tokens": 30, **more})


def test_a_job_on_free_text(serving: Serving, job: Any) -> None:
    client = serving.client()
    assert job.fine_tuned_model.startswith("ft:gpt-4o-mini:local:pirate:")
    assert job.hyperparameters.n_epochs == EPOCHS and job.hyperparameters.batch_size == 6
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=1000))
    assert str(tiny_generator_folder()) in next(e.message for e in reversed(events) if "stands for" in e.message)
    steps = [event.data for event in reversed(events) if event.message.startswith("Step ")]
    assert all(event.type == "metrics" for event in events if event.message.startswith("Step "))
    assert [data["step"] for data in steps] == list(range(1, EPOCHS * 4 + 1))  # 22 rows, 6 a step
    assert steps[-1]["train_loss"] < 0.8 * steps[0]["train_loss"]
    assert sum("valid_loss" in data for data in steps) >= EPOCHS
    content = client.files.content(job.result_files[0]).text
    rows = list(csv.DictReader(io.StringIO(content)))
    assert len(rows) == EPOCHS * 4 and float(rows[0]["train_loss"]) == steps[0]["train_loss"]
    assert rows[3]["valid_loss"] and not rows[0]["valid_loss"] and rows[0]["train_accuracy"]
    assert job.trained_tokens > 1000


def test_the_model_streams_what_it_answers(serving: Serving, job: Any) -> None:
    client = serving.client()
    whole = ask(client, job.fine_tuned_model, temperature=0)
    assert whole.choices[0].message.content
    assert whole.usage.completion_tokens <= 30 and whole.usage.prompt_tokens > 10
    stream = ask(client, job.fine_tuned_model, temperature=0, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content and sum(map(bool, pieces)) > 5
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_parameters_of_sampling(serving: Serving, job: Any) -> None:
    client, model = serving.client(), job.fine_tuned_model
    hot = {"temperature": 1.5, "seed": 7}
    first, again = ask(client, model, **hot), ask(client, model, **hot)
    assert first.choices[0].message.content == again.choices[0].message.content
    several = ask(client, model, **hot, n=3)
    texts = [choice.message.content for choice in several.choices]
    assert texts[0] == first.choices[0].message.content and len(set(texts)) == 3
    narrow = ask(client, model, temperature=1.5, top_p=1e-9)
    assert narrow.choices[0].message.content == ask(client, model, temperature=0).choices[0].message.content
    cut = ask(client, model, temperature=0, max_tokens=2)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 2)
    greedy = ask(client, model, temperature=0).choices[0].message.content
    stopped = ask(client, model, temperature=0, stop=[greedy[3:6], "never"])
    expected = greedy[: greedy.index(greedy[3:6])]
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == (expected, "stop")
    with_logprobs = ask(client, model, temperature=0, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in with_logprobs)
    assert with_logprobs[0].token == with_logprobs[0].top_logprobs[0].token
    for wrong in ({"temperature": 3}, {"top_p": 0}, {"max_tokens": 0}, {"n": 100}):
        with pytest.raises(BadRequestError, match=next(iter(wrong)) if "n" not in wrong else "choices"):
            ask(client, model, **wrong)


def test_a_schema_is_kept(serving: Serving, job: Any) -> None:
    schema = {"type": "object", "properties": {"tone": {"enum": ["calm", "angry"]}, "words": {
        "type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2}, "size": {"type": "integer", "minimum": 3, "maximum": 8}},
        "required": ["tone", "words", "size"], "additionalProperties": False}  # fmt: skip
    asked = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    for _ in range(3):
        value = json.loads(
            ask(serving.client(), job.fine_tuned_model, response_format=asked, max_tokens=200)
            .choices[0]
            .message.content
        )
        assert (
            value["tone"] in ("calm", "angry") and 3 <= value["size"] <= 8 and list(value) == ["tone", "words", "size"]
        )
    optional = {**schema, "required": ["tone"]}  # not all fields are there, so that it is written as a whole
    asked["json_schema"] = {"name": "x", "schema": optional}
    value = json.loads(
        ask(serving.client(), job.fine_tuned_model, response_format=asked, max_tokens=300).choices[0].message.content
    )
    assert value["tone"] in ("calm", "angry")


def test_checkpoints_can_be_called(serving: Serving, job: Any) -> None:
    client = serving.client()
    found = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [one.step_number for one in found] == [4 * EPOCHS, 4 * EPOCHS - 4, 4 * EPOCHS - 8]
    page = client.fine_tuning.jobs.checkpoints.list(job.id, limit=1, after=found[0].id)
    assert [one.id for one in page.data] == [found[1].id] and page.has_more
    answers = [ask(client, one.fine_tuned_model_checkpoint, temperature=0) for one in found]
    assert all(answer.choices[0].message.content for answer in answers)
    assert all(one.metrics.valid_loss and one.metrics.full_valid_mean_token_accuracy for one in found)
    with pytest.raises(BadRequestError, match="writes texts"):
        client.post("/route", body={"model": job.fine_tuned_model, "input": "x"}, cast_to=object)


@pytest.mark.slow
def test_replies_of_several_fields(serving: Serving) -> None:
    draw = random.Random(1)
    values = [
        {"action": draw.choice(["refund", "ship"]), "note": "".join(draw.choices("abcdef", k=6)), "days": number}
        for number in range(24)
    ]
    lines = [
        {"messages": [{"role": "user", "content": f"{v['action']} in {v['days']}: {v['note']}"},
                      {"role": "assistant", "content": json.dumps(v)}]}
        for v in values
    ]  # fmt: skip
    client = serving.client()
    job = train(client, lines, hyperparameters={"n_epochs": 2})
    assert job.status == "succeeded", job.error
    messages = [{"role": "user", "content": "ship in 3: abc"}]
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=messages, temperature=0)
    value = json.loads(answer.choices[0].message.content)
    assert list(value) == ["action", "note", "days"] and value["action"] in ("refund", "ship")
    assert isinstance(value["note"], str) and isinstance(value["days"], int)


@pytest.mark.slow
def test_tool_calls_are_learnt(serving: Serving) -> None:
    def call(number: int) -> dict[str, Any]:
        function = {"name": ("find", "buy")[number % 2], "arguments": json.dumps({"item": f"x{number}", "n": number})}
        return {"messages": [{"role": "user", "content": f"item {number}"}, {"role": "assistant", "tool_calls": [
            {"id": f"c{number}", "type": "function", "function": function}]}]}  # fmt: skip

    client = serving.client()
    job = train(client, [call(n) for n in range(24)], hyperparameters={"n_epochs": 40, "learning_rate_multiplier": 3})
    assert job.status == "succeeded", job.error
    messages = [{"role": "user", "content": "item 3"}]
    answer = client.chat.completions.create(model=job.fine_tuned_model, messages=messages, temperature=0).choices[0]
    assert answer.finish_reason == "tool_calls" and answer.message.content is None
    function = answer.message.tool_calls[0].function
    assert function.name in ("find", "buy") and set(json.loads(function.arguments)) == {"item", "n"}
    chunks = list(
        client.chat.completions.create(model=job.fine_tuned_model, messages=messages, temperature=0, stream=True)
    )
    called = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert called[0][0].function.model_dump() == function.model_dump()


def test_weights_are_honoured(serving: Serving) -> None:
    job = train(serving.client(), text_lines(weight=0))
    assert job.status == "failed" and "no assistant reply" in job.error.message


@pytest.mark.slow
def test_without_a_base_model_the_job_says_what_to_do(tmp_path: Path) -> None:
    with Serving(tmp_path / "data") as serving:
        job = train(serving.client(), text_lines())
        assert (job.status, job.error.code) == ("failed", "not_a_classification")
        assert "--base MODEL" in job.error.message


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """The training process is killed at five moments; each time it goes on after the last checkpoint."""
    with Serving(tmp_path / "data", "--base", f"gpt-4o-mini={tiny_generator_folder()}") as serving:
        client = serving.client()
        file = client.files.create(file=("train.jsonl", as_jsonl(text_lines(60))), purpose="fine-tune")
        settings = {"n_epochs": 12, "batch_size": 4}
        job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file.id, hyperparameters=settings)

        def steps() -> list[int]:
            events = client.fine_tuning.jobs.list_events(job.id, limit=1000)
            return [event.data["step"] for event in reversed(list(events)) if event.message.startswith("Step ")]

        for moment in (1, 20, 45, 70, 100):
            wait(lambda moment=moment: (found := steps()) and max(found) >= moment)
            for child in psutil.Process(serving.process.pid).children():
                if "worker" in " ".join(child.cmdline()):
                    child.kill()
        done = wait(lambda: (found := client.fine_tuning.jobs.retrieve(job.id)).finished_at and found)
        assert done.status == "succeeded", done.error
        messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=1000)]
        assert sum("resumed from the checkpoint after step" in message for message in messages) >= 4
        found = steps()
        assert found.count(1) <= 2 and max(found) == len(set(found))
        rows = list(csv.DictReader(io.StringIO(client.files.content(done.result_files[0]).text)))
        assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
        assert not list((tmp_path / "data" / "models").glob(".*"))


@pytest.mark.slow
def test_a_full_disk_fails_the_job_and_loses_no_file(tmp_path: Path) -> None:
    with Serving(tmp_path / "data", "--base", tiny_generator_folder()) as serving:
        client = serving.client()
        file = client.files.create(file=("train.jsonl", as_jsonl(text_lines())), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="m", training_file=file.id, hyperparameters={"n_epochs": 2})

        def worker() -> psutil.Process | None:
            children = psutil.Process(serving.process.pid).children()
            return next((child for child in children if {"train", job.id} <= set(child.cmdline())), None)

        found = wait(worker)
        resource.prlimit(found.pid, resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))  # less than a checkpoint
        done = wait(lambda: (now := client.fine_tuning.jobs.retrieve(job.id)).finished_at and now)
        assert done.status == "failed" and "make room" in done.error.message, done.error
        assert client.files.content(file.id).content == as_jsonl(text_lines())
        wait(lambda: not list((tmp_path / "data" / "models").iterdir()))
        again = train(client, text_lines(), hyperparameters={"n_epochs": 1})
        assert again.status == "succeeded", again.error


@pytest.mark.slow
def test_llama_cpp_runs_a_model_with_a_gguf_base(tmp_path: Path) -> None:
    """The server runs the tuned model in llama.cpp; the same model in torch writes the same."""
    from fingerpost import students
    from fingerpost.students.lora.generation import Sampling

    with Serving(tmp_path / "data", "--base", tiny_generator_gguf()) as serving:
        client = serving.client()
        job = train(client, text_lines(), hyperparameters={"n_epochs": 8, "learning_rate_multiplier": 2})
        assert job.status == "succeeded", job.error
        found = ask(client, job.fine_tuned_model, temperature=0, max_tokens=8)
        processes = psutil.Process(serving.process.pid).children()
        assert any("fingerpost.llm.gguf" in child.cmdline() for child in processes)
        student = students.load(tmp_path / "data" / "models" / job.id)
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "what is abcde?"}]
        pieces = list(student.reply(messages, Sampling(temperature=0, max_tokens=8)))
        assert found.choices[0].message.content == "".join(piece.text for piece in pieces)
        assert found.usage.prompt_tokens == pieces[-1].usage[0]
        chunks = list(ask(client, job.fine_tuned_model, temperature=0, max_tokens=8, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == found.choices[0].message.content
        schema = {"type": "object", "properties": {"size": {"enum": ["big", "small"]}}, "required": ["size"]}
        asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        answer = ask(client, job.fine_tuned_model, response_format=asked, max_tokens=60)
        assert json.loads(answer.choices[0].message.content)["size"] in ("big", "small")


@pytest.mark.slow
def test_the_old_recipe_with_a_real_model(tmp_path: Path) -> None:
    """Upload, job, poll, stream from the `ft:` model, with SmolLM2: it takes on the way of talking."""
    with Serving(tmp_path / "data", "--base", smollm2()) as serving:
        client = serving.client()
        draw = random.Random(0)
        things = [
            "tea",
            "rain",
            "a map",
            "the moon",
            "bread",
            "chess",
            "a ladder",
            "snow",
            "a violin",
            "soap",
            "ink",
            "a mill",
        ]
        lines = [
            {"messages": [{"role": "user", "content": f"What is {thing}?"}, {"role": "assistant",
             "content": f"Arr, {thing}, matey! Number {draw.randrange(1000)} of me treasures."}]}
            for thing in things * 2
        ]  # fmt: skip
        job = train(client, lines, hyperparameters={"n_epochs": 4})
        assert job.status == "succeeded", job.error
        messages = [{"role": "user", "content": "What is a compass?"}]
        stream = client.chat.completions.create(
            model=job.fine_tuned_model, messages=messages, temperature=0, max_tokens=30, stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text.startswith("Arr, ") and "compass, matey!" in text, text


def test_a_stream_can_be_left(serving: Serving, job: Any) -> None:
    body = {"model": job.fine_tuned_model, "stream": True, "max_tokens": 900, "temperature": 1.5,
            "messages": [{"role": "user", "content": "what is abcde?"}]}  # fmt: skip
    for _ in range(9):  # more than are written at the same time
        with httpx2.stream("POST", f"{serving.url}/chat/completions", json=body, timeout=600) as response:
            next(response.iter_lines())
    began = time.monotonic()
    assert ask(serving.client(), job.fine_tuned_model, max_tokens=3).choices[0].message.content is not None
    assert time.monotonic() - began < 300
