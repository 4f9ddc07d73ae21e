"""How a folder of sentence-transformers computes a vector: pooling, dense layers, prompt and length, as it says itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, normalizers, processors
from transformers.utils import cached_file

from fingerpost.core.errors import ModelError

POOLINGS = {
    "mean": "mean", "mean_tokens": "mean", "mean_sqrt_len_tokens": "mean", "cls": "cls", "cls_token": "cls",
    "max": "max", "max_tokens": "max", "lasttoken": "last", "weightedmean": "weighted", "weightedmean_tokens": "weighted",
}  # fmt: skip
"""Ways of pooling by their names in a Pooling module, of any version. A factor that depends on the length makes no
difference, because vectors get unit length."""
PROMPTS = ("classification", "query")
"""Names of prompts that fit, if the folder names no default."""
ACTIVATIONS = {"Tanh": torch.nn.Tanh, "Identity": torch.nn.Identity, "ReLU": torch.nn.ReLU, "GELU": torch.nn.GELU}


@dataclass(frozen=True, slots=True)
class Modules:
    """Pooling, dense layers, prompt and length of a sentence encoder.

    Attributes:
        transformer: the transformer's folder inside the model.
        pooling: the ways of pooling, whose vectors are concatenated: mean, cls, max, last or weighted.
        dense: layers after the pooling; empty for most encoders.
        width: length of a pooled vector after `dense`, or None if that is the transformer's own for each way of pooling.
        prompt: text before each text.
        max_tokens: tokens that the encoder was made for, or None.
        lower_case: texts are lower-cased.
    """

    transformer: str = ""
    pooling: tuple[str, ...] = ("mean",)
    dense: torch.nn.Sequential | None = None
    width: int | None = None
    prompt: str = ""
    max_tokens: int | None = None
    lower_case: bool = False

    @property
    def described(self) -> dict[str, str]:
        """What differs from mean pooling alone, for the manifest."""
        given = {
            "pooling": "" if self.pooling == ("mean",) else "+".join(self.pooling),
            "prompt": self.prompt,
            "dense": str(self.width or ""),
        }
        return {key: value for key, value in given.items() if value}


MEAN = Modules()
"""Mean pooling alone."""


def read_modules(source: str, name: str) -> Modules:
    """The modules of a folder or hub model; mean pooling where it has no modules.json.

    Args:
        name: the encoder's name in messages.

    Raises:
        ModelError: a module or a way of pooling is not supported.
    """
    listed = _json(source, "modules.json")
    if listed is None:
        return MEAN
    kinds = [(str(module.get("type")).rsplit(".", 1)[-1], str(module.get("path") or "")) for module in listed]
    unknown = [kind for kind, _ in kinds if kind not in ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")]
    if unknown:
        raise ModelError(
            f"the encoder '{name}' has a module {unknown[0]}, which is not supported; give another --encoder"
        )
    transformer = next((path for kind, path in kinds if kind == "Transformer"), "")
    pooling: tuple[str, ...] = ("mean",)
    layers: list[torch.nn.Module] = []
    width: int | None = None
    for kind, path in kinds:
        if kind == "Pooling":
            pooling = _pooling(_json(source, f"{path}/config.json") or {}, name)
        elif kind == "Dense":
            layer, width = _dense(source, path, name)
            layers.append(layer)
    length = _json(source, f"{transformer}/sentence_bert_config.json".lstrip("/")) or {}
    return Modules(
        transformer,
        pooling,
        torch.nn.Sequential(*layers).eval() if layers else None,
        width,
        _prompt(_json(source, "config_sentence_transformers.json") or {}),
        length.get("max_seq_length"),
        bool(length.get("do_lower_case")),
    )


def with_prompt(tokenizer: Tokenizer, modules: Modules) -> Tokenizer:
    """The tokenizer with the prompt in front of each window, so that whoever reads its file needs to know nothing of it."""
    if modules.lower_case:
        parts = [normalizers.Lowercase(), *([tokenizer.normalizer] if tokenizer.normalizer else [])]
        tokenizer.normalizer = normalizers.Sequence(parts)
    if not modules.prompt:
        return tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    around = tokenizer.encode("a")
    words = [i for i, special in enumerate(around.special_tokens_mask) if not special]
    prompt = tokenizer.encode(modules.prompt.strip(), add_special_tokens=False)

    def piece(name: str, ids: Sequence[int], tokens: Sequence[str]) -> Any:
        return {"id": name, "ids": list(ids), "tokens": list(tokens)}

    first, last = words[0], words[-1] + 1
    before = piece("before", [*around.ids[:first], *prompt.ids], [*around.tokens[:first], *prompt.tokens])
    after = piece("after", around.ids[last:], around.tokens[last:])
    template = "before $A after" if around.ids[last:] else "before $A"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[before, *([after] if around.ids[last:] else [])]
    )
    return tokenizer


def pool(states: torch.Tensor, attention_mask: torch.Tensor, how: str) -> torch.Tensor:
    """One vector for each text, shape (batch, width), from token vectors of shape (batch, tokens, width)."""
    mask = attention_mask.unsqueeze(-1).to(states.dtype)
    if how == "cls":
        return states[:, 0]
    if how == "max":
        return states.masked_fill(mask == 0, -1e4).amax(1)
    if how == "last":
        positions = torch.arange(states.shape[1], device=states.device)
        is_last = (positions == attention_mask.sum(1, keepdim=True) - 1).unsqueeze(-1).to(states.dtype)
        return (states * is_last).sum(1)
    if how == "weighted":
        mask = mask * torch.arange(1, states.shape[1] + 1, device=states.device, dtype=states.dtype)[None, :, None]
    return (states * mask).sum(1) / mask.sum(1)


def _pooling(config: dict[str, Any], name: str) -> tuple[str, ...]:
    mode = config.get("pooling_mode")
    named = [mode] if isinstance(mode, str) else list(mode or ())
    flags = [key.removeprefix("pooling_mode_") for key, value in config.items() if value is True]
    given = named or [key for key in flags if key != "include_prompt"]
    found = tuple(POOLINGS[key] for key in given if key in POOLINGS)
    if not found or len(found) < len(given):
        raise ModelError(f"the encoder '{name}' pools in a way that is not supported; give another --encoder")
    return found


def _dense(source: str, path: str, name: str) -> tuple[torch.nn.Module, int]:
    """A dense layer with its activation, and the length of its output."""
    config = _json(source, f"{path}/config.json") or {}
    activation = str(config.get("activation_function", "Identity")).rsplit(".", 1)[-1]
    file = cached_file(source, f"{path}/model.safetensors", _raise_exceptions_for_missing_entries=False)
    if activation not in ACTIVATIONS or file is None:
        raise ModelError(
            f"the encoder '{name}' has a dense layer that cannot be read (it needs {path}/model.safetensors and one of "
            f"the activations {', '.join(ACTIVATIONS)}); give another --encoder"
        )
    weights = load_file(file)
    layer = torch.nn.Linear(config["in_features"], config["out_features"], bias="linear.bias" in weights)
    layer.load_state_dict({key.removeprefix("linear."): value for key, value in weights.items()})
    return torch.nn.Sequential(layer, ACTIVATIONS[activation]()), int(config["out_features"])


def _prompt(config: dict[str, Any]) -> str:
    prompts = config.get("prompts") or {}
    named = config.get("default_prompt_name")
    chosen = named if named in prompts else next((name for name in PROMPTS if prompts.get(name)), None)
    return str(prompts.get(chosen) or "")


def _json(source: str, file: str) -> Any:
    """The content of a JSON file of a folder or hub model; None where it has no such file."""
    found = cached_file(source, file, _raise_exceptions_for_missing_entries=False)
    if found is None:
        return None
    return json.loads(Path(found).read_text(encoding="utf-8"))
