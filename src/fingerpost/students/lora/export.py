"""A generative student as files for other engines: PEFT, llama.cpp, Ollama, and anything that reads safetensors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from fingerpost.core.errors import InputError, ModelError
from fingerpost.core.text import fingerprint
from fingerpost.core.version import __version__
from fingerpost.students.folder import ADAPTER, ADAPTER_CONFIG, Manifest, read_manifest
from fingerpost.students.lora.base import GGUF, open_base, quiet, require_base
from fingerpost.students.lora.runner import adapter_tensors

ADAPTER_GGUF, MODELFILE, CARD, MERGED, PEFT = "adapter.gguf", "Modelfile", "README.md", "merged", "adapter"
PREFIX = "base_model.model."
"""Before the names of the base model's modules in an adapter of `peft`."""
ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"}
"""Architectures that GGUF knows under another name than `transformers`."""
PERMUTED = ("llama",)
"""Architectures whose rows of q and k are in another order in GGUF files, because llama.cpp rotates neighbouring values."""


def export(folder: Path, target: Path, merged: bool = False) -> list[Path]:
    """Write a student for other engines; returns the files and folders.

    `adapter/` is the adapter in the format of `peft`, `adapter.gguf` that of llama.cpp, `Modelfile` is Ollama's, and `README.md` the
    model card. `merged/` holds all weights with the adapter added, in the format of `transformers`.

    Args:
        folder: the model folder.
        target: the folder to write to; it must be empty or not exist.
        merged: whether to write the merged weights, which need as much room as the base model.

    Raises:
        InputError: the model is no generative student, or `target` is not empty.
        ModelError: the base model cannot be loaded.
    """
    manifest = read_manifest(folder)
    if manifest.kind != "lora":
        raise InputError(
            f"{folder} is a student of kind '{manifest.kind}'; only models trained with --student lora can be exported"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not empty; give a new folder")
    if merged:
        require_base(manifest)
    target.mkdir(parents=True, exist_ok=True)
    write_adapter(folder, target / ADAPTER_GGUF)  # first, because not every architecture has one
    (target / PEFT).mkdir()
    for name in (ADAPTER, ADAPTER_CONFIG):
        shutil.copy(folder / name, target / PEFT / name)
    written = [target / PEFT]
    base = Path(manifest.encoder["name"])
    (target / MODELFILE).write_text(modelfile(manifest, base), encoding="utf-8")
    written += [target / ADAPTER_GGUF, target / MODELFILE]
    if merged:
        _merge(folder, manifest, target / MERGED)
        written.append(target / MERGED)
    (target / CARD).write_text(model_card(manifest), encoding="utf-8")
    return [*written, target / CARD]


def _merge(folder: Path, manifest: Manifest, target: Path) -> None:
    """Write the base model with the adapter added to its weights."""
    from peft import PeftModel

    opened = open_base(manifest.encoder["name"])
    with quiet():
        whole = PeftModel.from_pretrained(opened.model, str(folder)).merge_and_unload()
        whole.save_pretrained(str(target))
        opened.tokenizer.save_pretrained(str(target))


def write_adapter(folder: Path, file: Path) -> None:
    """Write a student's adapter as a GGUF file, which llama.cpp adds to the base model with `--lora`.

    Raises:
        ModelError: llama.cpp does not know the base model's architecture or one of its layers.
    """
    manifest = read_manifest(folder)
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    architecture, layers, heads, key_heads = _shape(manifest.encoder["name"])
    names = gguf.get_tensor_name_map(_architecture(architecture), layers)
    tensors = []
    for name, part, tensor in _tensors(folder):
        found = names.get_name(f"{name}.weight", try_suffixes=(".weight",))
        if found is None:
            raise ModelError(f"llama.cpp has no name for the layer {name} of the architecture {architecture}")
        if part == "lora_b" and architecture in PERMUTED:
            tensor = permuted(tensor, name, heads, key_heads)
        tensors.append((f"{found}.{part}", np.ascontiguousarray(tensor)))
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(manifest.name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    for name, tensor in tensors:
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(folder: Path) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name of the layer, `lora_a` or `lora_b`, and the matrix, for each matrix of an adapter."""
    for key, tensor in sorted(adapter_tensors(folder).items()):
        layer, _, rest = key.removeprefix(PREFIX).partition(".lora_")
        yield layer, f"lora_{rest[0].lower()}", tensor.float().numpy()


def permuted(tensor: NDArray[np.float32], name: str, heads: int, key_heads: int) -> NDArray[np.float32]:
    """The rows of q and k in the order of GGUF files: the two halves of each head are interleaved.

    Args:
        tensor: shape (rows, rank).
    """
    count = {"q_proj": heads, "k_proj": key_heads}.get(name.rpartition(".")[2])
    if count is None:
        return tensor
    return tensor.reshape(count, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def _shape(base: str) -> tuple[str, int, int, int]:
    """Architecture, layers, heads and key heads of a base model, read without its weights."""
    import transformers

    path = Path(base)
    with quiet():
        if path.suffix.lower() == GGUF:
            config: Any = transformers.AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name)
        else:
            config = transformers.AutoConfig.from_pretrained(base)
    config = config.get_text_config()
    kind = str(config.model_type)
    heads = int(config.num_attention_heads)
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    return ARCHITECTURES.get(kind, kind), int(config.num_hidden_layers), heads, key_heads


def _architecture(name: str) -> Any:
    found = next((key for key, known in gguf.MODEL_ARCH_NAMES.items() if known == name), None)
    if found is None:
        raise ModelError(f"llama.cpp does not know the architecture {name}")
    return found


def modelfile(manifest: Manifest, base: Path) -> str:
    """A Modelfile for Ollama: `ollama create NAME -f Modelfile`."""
    source = str(base.resolve()) if base.exists() else manifest.encoder["name"]
    lines = [f"FROM {source}", f"ADAPTER ./{ADAPTER_GGUF}"]
    if manifest.system:
        lines += [f'SYSTEM """{manifest.system}"""', "PARAMETER temperature 0"]
    return "\n".join(lines) + "\n"


def model_card(manifest: Manifest) -> str:
    """A model card: what the model is, what it was trained on, what was measured, and the base model's licence."""
    base, training = manifest.encoder, manifest.training
    labels = f"chooses one of {len(manifest.labels)} labels" if manifest.labels else "writes its replies"
    rows = [
        ("Base model", base["name"]),
        ("Hash of the base model", base["sha256"]),
        ("Licence of the base model", base.get("license") or "not stated; look it up before you publish this model"),
        ("Hash of the training data", manifest.data_fingerprint or "not recorded"),
        ("Hash of the adapter", manifest.files[ADAPTER]),
        ("Training and validation rows", f"{training['train_rows']:,} and {training['dev_rows']:,}"),
        ("Epochs, replies a step, rank, seed", f"{training['epochs']}, {training['batch']}, {training['rank']}, {manifest.seed}"),
        ("Loss on validation rows, in nats", f"{training['dev_loss']:.3f}"),
        ("Accuracy on validation rows" if manifest.labels else "Accuracy on the tokens of validation rows", f"{training['dev_accuracy']:.3f}"),
        ("Trained with", ", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items()))),
    ]  # fmt: skip
    if "base_dev_loss" in training:
        rows.insert(8, ("Loss of the untuned base model on them", f"{training['base_dev_loss']:.3f}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    system = (
        f"\n\nThe system prompt that it was trained with:\n\n```\n{manifest.system}\n```" if manifest.system else ""
    )
    return (
        f"---\nlibrary_name: peft\nbase_model: {base['name']}\n---\n\n# {manifest.name}\n\n"
        f"A LoRA adapter that {labels}. Written by Fingerpost {__version__} (manifest {fingerprint([manifest.model_dump_json()])}).\n\n"
        f"| | |\n|---|---|\n{table}{system}\n"
    )
