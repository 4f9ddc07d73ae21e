"""The generative student: packed training, scored labels, checkpoints, export. The model is tiny and random."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TEXTS
from tiny_generator import tiny_generative_student, tiny_generator_folder, tiny_generator_gguf

from fingerpost import students
from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.text import question_id
from fingerpost.core.types import Example, Label, Message, Progress
from fingerpost.data.dialogues import Dialogue, Turn
from fingerpost.students.folder import checkpoint_folder, read_manifest, read_steps
from fingerpost.students.lora.base import open_base
from fingerpost.students.lora.dialogues import Item, common_beginning, items_of
from fingerpost.students.lora.export import export, permuted
from fingerpost.students.lora.fields import fill
from fingerpost.students.lora.generation import GrammarCompiler, Sampling, write
from fingerpost.students.lora.label_prompts import LabelPrompt
from fingerpost.students.lora.packing import losses, pack
from fingerpost.students.lora.scoring import PromptCache, ReplyTree, score_replies
from fingerpost.students.lora.train import fit
from fingerpost.students.lora.train_text import fit_text
from fingerpost.students.lora.tuning import Recipe
from fingerpost.task.prompt import system_prompt
from fingerpost.task.reply_format import json_template
from fingerpost.task.reply_schema import canonical_reply, schema_of_replies
from fingerpost.task.settings import Task

LABELS = tuple(Label(name=name, description=f"about {name}") for name in TEXTS)
TASK = Task(name="shop", instructions="Route the message.", labels=LABELS)


def examples() -> list[Example]:
    found = []
    for label, texts in TEXTS.items():
        for text in texts:
            messages = (Message("user", text),)
            found.append(Example(question_id(messages), messages, {label: 1.0}))
    return found


@pytest.fixture(scope="module")
def base() -> Any:
    opened = open_base(str(tiny_generator_folder()), torch.device("cpu"))
    opened.model.float()  # bfloat16 would hide differences
    return opened


@pytest.fixture(scope="module")
def student() -> Any:
    return students.load(tiny_generative_student())


def plain_loss(model: Any, item: Item) -> torch.Tensor:
    """The loss of each token of a reply, by the model's own causal mask, without packing."""
    tokens = torch.tensor([[*item.prompt, *item.reply]])
    with torch.inference_mode():
        logits = model(input_ids=tokens).logits[0, len(item.prompt) - 1 : -1].float()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(item.reply), reduction="none")


def test_packed_replies_have_the_loss_of_separate_ones(base: Any) -> None:
    draw = random.Random(0)
    shared = draw.choices(range(3, 300), k=30)
    items = [
        Item(
            [*shared, *draw.choices(range(3, 300), k=draw.randrange(1, 20))],
            draw.choices(range(3, 300), k=draw.randrange(1, 9)),
            1.0,
        )
        for _ in range(7)
    ]
    for limit, count in ((10_000, 1), (100, 2), (1, 7)):
        packed = pack(items, limit)
        assert len(packed) == count
        with torch.inference_mode():
            found = torch.cat([losses(base.model, one)[0] for one in packed])
        expected = torch.cat([plain_loss(base.model, item) for item in items])
        assert torch.allclose(found, expected, atol=1e-4)
    whole = sum(len(item.prompt) + len(item.reply) for item in items)
    assert len(pack(items, 10_000)[0].tokens) == whole - 6 * len(shared)


def test_weights_scale_the_loss(base: Any) -> None:
    items = [Item([5, 6, 7], [8, 9], 1.0), Item([5, 6, 7], [8, 9], 2.5)]
    (packed,) = pack(items, 100)
    with torch.inference_mode():
        found, _ = losses(base.model, packed)
    assert torch.allclose(found[2:], 2.5 * found[:2])


@pytest.mark.parametrize("rows", [1, 5])
def test_scores_are_those_of_whole_replies(base: Any, rows: int) -> None:
    draw = random.Random(rows)
    shared = draw.choices(range(3, 300), k=20)
    prompts = [[*shared, *draw.choices(range(3, 300), k=draw.randrange(1, 12))] for _ in range(rows)]
    replies = [[7, 8, 9, 2], [7, 8, 10, 11, 2], [7, 8, 2], [12, 2]]  # one begins another, so the ends count
    tree = ReplyTree.of(replies)
    assert [[tree.tokens[node] for node in path] for path in tree.paths] == replies
    assert len(tree.tokens) == 10
    cache = PromptCache()
    for _ in range(2):  # the second time from the cache
        found = score_replies(base.model, cache, prompts, tree)
        for row, prompt in enumerate(prompts):
            for column, reply in enumerate(replies):
                expected = -plain_loss(base.model, Item(prompt, reply, 1.0)).sum()
                assert float(found[row, column]) == pytest.approx(float(expected), abs=1e-3)


def test_ends_are_left_out_where_they_tell_nothing() -> None:
    tree = ReplyTree.of([[7, 8, 2], [7, 9, 2]])
    assert [[tree.tokens[node] for node in path] for path in tree.paths] == [[7, 8], [7, 9]]


def test_common_beginning() -> None:
    assert common_beginning([[1, 2, 3], [1, 2, 4], [1, 2]]) == [1, 2]
    assert common_beginning([[1], [2]]) == [] and common_beginning([[1, 2]]) == [1, 2]


def test_predictions_follow_the_labels(student: Any) -> None:
    rows = examples()
    predictions = student.predict([example.messages for example in rows])
    assert np.mean([one.label == example.label for one, example in zip(predictions, rows, strict=True)]) > 0.5
    assert student.manifest.training["dev_accuracy"] > 0.5


def test_labels_may_become_codes_and_new_ones_are_scored(student: Any) -> None:
    coded = student.with_prompt(student.prompt.with_codes([11, 12, 13]))
    assert "- 12: " in coded.prompt.text and coded.prompt.reply(LABELS[1].name) == '{"action": 12}'
    assert set(coded.predict("where is my parcel").scores) == set(TEXTS)
    more = student.with_labels([Label(name="refund", description="wants money back")])
    assert "- refund: wants money back" in more.prompt.text
    assert set(more.predict("give me my money").scores) == {*TEXTS, "refund"}
    assert set(student.predict("x").scores) == set(TEXTS)


@pytest.mark.parametrize(
    "system",
    [
        "Route it.\n- billing: invoices\n- delivery: parcels\n- other: the rest\nReply with JSON.",
        "Labels:\n1. `billing` - invoices\n2. `delivery` - parcels\n3. `other` - the rest",
        "* billing: invoices\n* delivery: parcels\n* other: the rest\n",
    ],
)
def test_a_prompts_list_is_found_and_varied(system: str) -> None:
    labels = [Label(name=name) for name in ("billing", "delivery", "other")]
    prompt = LabelPrompt.of(system, labels, json_template("action"))
    assert prompt.is_listed and prompt.text == system
    shuffled = [prompt.shuffled(random.Random(seed)).text for seed in range(20)]
    assert len(set(shuffled)) == 6
    for text in shuffled:
        assert sorted(text.replace("\n", " ").split()) == sorted(system.replace("\n", " ").split())
        markers = ([line[:2] for line in given.split("\n")] for given in (text, system))
        assert next(markers) == next(markers), "the markers stay where they are"
    coded = prompt.with_codes([5, 6, 7])
    assert coded.reply("delivery") == '{"action": 6}' and "6: " in coded.text
    assert "delivery" not in prompt.without(["delivery"]).text


def test_varied_prompts_list_what_is_needed() -> None:
    prompt = LabelPrompt.of(system_prompt(TASK), LABELS, json_template("action"))
    codes = 0
    for seed in range(40):
        found = prompt.varied(random.Random(seed), ["billing"])
        assert any(one.label.name == "billing" for one in found.listed) and len(found.listed) >= 2
        codes += found.template.codes
    assert 10 < codes < 30


def test_a_prompt_without_a_list_is_left_as_it_is() -> None:
    prompt = LabelPrompt.of("Route it.", LABELS, json_template("action"))
    assert not prompt.is_listed and prompt.shuffled(random.Random(0)).text == "Route it."


def test_the_same_seed_gives_the_same_adapter(tmp_path: Path) -> None:
    rows = examples()
    hashes = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        manifest = fit(
            rows[::2], rows[1::2], TASK, tmp_path / name, base=str(tiny_generator_folder()), recipe=Recipe(1, seed=seed)
        )
        hashes.append(manifest.files["adapter_model.safetensors"])
    assert hashes[0] == hashes[1] != hashes[2]


class Interrupted(Exception):
    pass


def test_an_interrupted_training_goes_on_where_it_was(tmp_path: Path) -> None:
    rows, recipe = examples(), Recipe(3, batch=4, seed=5)
    whole = fit(rows[::2], rows[1::2], TASK, tmp_path / "whole", base=str(tiny_generator_folder()), recipe=recipe)
    steps = whole.training["steps"]
    seen: list[int] = []

    def stop_at(last: int) -> Any:
        def on_progress(progress: Progress) -> None:
            if progress.data is not None:
                seen.append(progress.data.step)
            if progress.detail and progress.done == last:
                raise Interrupted

        return on_progress

    for last in (1, steps // 2, steps - 1):
        with pytest.raises(Interrupted):
            fit(rows[::2], rows[1::2], TASK, tmp_path / "parts", base=str(tiny_generator_folder()), recipe=recipe,
                checkpoint_s=0, on_progress=stop_at(last))  # fmt: skip
    manifest = fit(rows[::2], rows[1::2], TASK, tmp_path / "parts", base=str(tiny_generator_folder()), recipe=recipe,
                   checkpoint_s=0, on_progress=stop_at(-1))  # fmt: skip
    assert seen == list(range(1, steps + 1)), "no step is done twice"
    assert manifest.training["resumed"] == 3
    assert manifest.files["adapter_model.safetensors"] == whole.files["adapter_model.safetensors"]
    assert [step["step"] for step in read_steps(tmp_path / "parts")] == list(range(1, steps + 1))
    assert not checkpoint_folder(tmp_path / "parts").exists()


def test_a_checkpoint_of_other_data_is_not_used(tmp_path: Path) -> None:
    rows = examples()

    def stop(progress: Progress) -> None:
        if progress.detail:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit(
            rows[::2],
            rows[1::2],
            TASK,
            tmp_path / "m",
            base=str(tiny_generator_folder()),
            recipe=Recipe(1),
            checkpoint_s=0,
            on_progress=stop,
        )
    manifest = fit(rows[1::2], rows[::2], TASK, tmp_path / "m", base=str(tiny_generator_folder()), recipe=Recipe(1))
    assert manifest.training["resumed"] == 0


def dialogues(count: int = 20) -> list[Dialogue]:
    return [
        Dialogue((Turn("user", f"word {n}"), Turn("assistant", f"first {n}", 0.0), Turn("user", "more"), Turn("assistant", f"then {n}", 1.0)))
        for n in range(count)
    ]  # fmt: skip


def test_only_replies_with_a_weight_are_learnt(base: Any) -> None:
    (item,) = items_of(base.tokenizer, dialogues(1)[0], 500)
    assert base.tokenizer.decode(item.reply) == "then 0<|im_end|>"
    assert base.tokenizer.decode(item.prompt).endswith(
        "first 0<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
    )


def test_long_conversations_are_cut(base: Any) -> None:
    both = Dialogue((Turn("user", "x " * 900), Turn("assistant", "y " * 900, 1.0)))
    (item,) = items_of(base.tokenizer, both, 200)
    assert (len(item.reply), len(item.prompt), item.cut) == (100, 100, True)
    long_reply = Dialogue((Turn("user", "x"), Turn("assistant", "y " * 60, 1.0)))
    (item,) = items_of(base.tokenizer, long_reply, 200)
    assert len(item.reply) > 100 and not item.cut
    assert item.reply[-1] == base.tokenizer.eos_token_id
    open_end = Dialogue((Turn("user", "x"), Turn("assistant", "y", 1.0, False)))
    assert base.tokenizer.eos_token_id not in items_of(base.tokenizer, open_end, 200)[0].reply


def test_texts_lower_the_loss(tmp_path: Path) -> None:
    manifest = fit_text(
        dialogues(), [], tmp_path / "m", base=str(tiny_generator_folder()), recipe=Recipe(3), keep_epochs=2
    )
    assert manifest.training["dev_loss"] < 0.8 * manifest.training["base_dev_loss"]
    assert manifest.labels == [] and manifest.training["tokens"] > 0
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["m", "m~step-6", "m~step-9"]
    writer = students.load(tmp_path / "m")
    with pytest.raises(ModelError, match="writes texts"):
        writer.predict("x")


def test_a_schema_holds_for_any_model(base: Any) -> None:
    compiler = GrammarCompiler(base.tokenizer, base.model.config.vocab_size)
    prompt = base.tokenizer.encode("<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n")

    from contextlib import nullcontext

    def hold() -> Any:
        return nullcontext(base.model)

    ends = [base.tokenizer.eos_token_id]
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "string", "maxLength": 4}, "c": {
        "type": "object", "properties": {"d": {"enum": [1, "two", None]}, "e": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["d", "e"], "additionalProperties": False}}, "required": ["a", "b", "c"], "additionalProperties": False}  # fmt: skip
    for seed in range(3):
        sampling = Sampling(temperature=2, max_tokens=200, seed=seed)
        found = fill(hold, base.tokenizer, compiler, PromptCache(), prompt, schema, sampling, ends, 1024)
        assert json.loads(found.text) == found.value and len(found.value["b"]) <= 4 and 0 <= found.value["c"]["e"] <= 99
        assert found.probabilities[("c", "d")].keys() == {"1", '"two"', "null"}
        assert sum(found.probabilities[("a",)].values()) == pytest.approx(1)
        text = "".join(
            piece.text
            for piece in write(
                hold, base.tokenizer, PromptCache(), prompt, sampling, ends, 1024, compiler.schema(schema)
            )
        )
        assert list(json.loads(text)) == ["a", "b", "c"]
    with pytest.raises(InputError, match="simplify"):
        compiler.schema({"type": "object", "properties": {"a": {"not": {"type": "string"}}}, "required": ["a"]})


def test_a_reply_ends_at_the_context(base: Any) -> None:
    from contextlib import nullcontext

    pieces = list(
        write(
            lambda: nullcontext(base.model), base.tokenizer, PromptCache(), [5] * 30, Sampling(max_tokens=500), [], 40
        )
    )
    assert len(pieces) == 10 and pieces[-1].finish == "length" and pieces[-1].usage == (30, 10)


def test_replies_are_learnt_as_they_are_scored() -> None:
    schema = schema_of_replies(['{"b":1,"a":{"c":"é"}}', '{"a":{"c":"x"},"b":2}'])
    assert schema is not None
    assert canonical_reply('{"a":{"c":"\\u00e9"},\n "b":1}', schema) == '{"b": 1, "a": {"c": "é"}}'
    assert canonical_reply("no json", schema) == "no json"
    assert schema_of_replies(['{"a": 1}', '{"b": 1}']) is None and schema_of_replies(["x"]) is None


def test_varied_labels_need_a_list(tmp_path: Path) -> None:
    rows = examples()
    with pytest.raises(InputError, match="lists the labels"):
        fit(rows[::2], rows[1::2], TASK, tmp_path / "m", base=str(tiny_generator_folder()), recipe=Recipe(1),
            vary_labels=True, facts={"system": "Route it."})  # fmt: skip


def test_another_prompt_keeps_the_adapter(student: Any) -> None:
    asked = students.load(tiny_generative_student()).with_labels([Label(name="refund", description="money back")])
    import gc

    gc.collect()
    assert len(asked.predict("hello").scores) == 4


def test_a_base_that_is_none(tmp_path: Path) -> None:
    for name in (str(tmp_path / "missing.gguf"), str(tmp_path), "no/such-model"):
        with pytest.raises(ModelError, match="base model"):
            open_base(name)


def test_a_changed_base_is_refused(tmp_path: Path) -> None:
    fit_text(dialogues(), [], tmp_path / "m", base=str(tiny_generator_folder()), recipe=Recipe(0))
    manifest = read_manifest(tmp_path / "m")
    text = (tmp_path / "m" / "manifest.json").read_text().replace(manifest.encoder["sha256"], "0" * 64)
    (tmp_path / "m" / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="has changed"):
        students.load(tmp_path / "m")


def llama_cpp_logprobs(model: Path, adapter: Path | None, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """llama.cpp's most probable next tokens."""
    import httpx2

    from fingerpost.llm import gguf

    with gguf.serving(model, adapter) as url:
        body = {"prompt": list(tokens), "n_predict": 1, "n_probs": 10, "temperature": 0}
        answer = httpx2.post(f"{url.removesuffix('/v1')}/completion", json=body, timeout=120).json()
    return answer["completion_probabilities"][0]["top_logprobs"]


def test_llama_cpp_computes_what_torch_computes(tmp_path: Path) -> None:
    """A base GGUF file is trained, and its exported adapter gives the same logits in llama.cpp as in torch."""
    base = str(tiny_generator_gguf())
    fit_text(dialogues(), [], tmp_path / "m", base=base, recipe=Recipe(4, rate_multiplier=3))
    written = export(tmp_path / "m", tmp_path / "out", merged=True)
    assert [path.name for path in written] == ["adapter", "adapter.gguf", "Modelfile", "merged", "README.md"]
    student = students.load(tmp_path / "m")
    prompt = student.chat_tokens([{"role": "user", "content": "word 3"}])
    with student.model() as model, torch.inference_mode():
        tuned = torch.log_softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].float(), -1)
    for adapter, expected in ((None, None), (tmp_path / "out" / "adapter.gguf", tuned)):
        found = llama_cpp_logprobs(Path(base), adapter, prompt)
        differences = [abs(one["logprob"] - float(tuned[one["id"]])) for one in found]
        assert (max(differences) < 0.05) == (expected is not None), differences
    merged = open_base(str(tmp_path / "out" / "merged"))
    with torch.inference_mode():
        logits = torch.log_softmax(merged.model(input_ids=torch.tensor([prompt])).logits[0, -1].float(), -1)
    assert torch.allclose(logits, tuned, atol=0.05)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "apache-2.0" in card and student.manifest.data_fingerprint in card
    assert f"FROM {base}" in (tmp_path / "out" / "Modelfile").read_text()
    with pytest.raises(InputError, match="not empty"):
        export(tmp_path / "m", tmp_path / "out")


def test_permutation_interleaves_the_halves_of_each_head() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert permuted(rows, "model.layers.0.self_attn.q_proj", 2, 1)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert permuted(rows, "model.layers.0.mlp.up_proj", 2, 1)[:, 0].tolist() == list(range(8))


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    """As on two GPUs: each computes the gradients of its share of a step's replies, and one writes the model."""
    import subprocess
    import sys

    rows = "".join(f"{text},{label}\n" for label, texts in TEXTS.items() for text in texts)
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}")
    command = [
        "-m",
        "fingerpost",
        "train",
        "rows.csv",
        "--student",
        "lora",
        "--base",
        str(tiny_generator_folder()),
        "--epochs",
        "2",
    ]
    launched = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29537"]
    for name, before in (("one", [sys.executable]), ("two", launched)):
        ended = subprocess.run([*before, *command, "-o", name], cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("an adapter for") == 1
    one, two = ([step["train_loss"] for step in read_steps(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == len(two) and one == pytest.approx(two, rel=0.05), "equal but for dropout"
    assert one[0] == pytest.approx(two[0], rel=0.01)
