"""The base model: a causal language model from the hub, a folder, or a GGUF file, with its tokenizer and chat template."""

from __future__ import annotations

import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import transformers.modeling_gguf_pytorch_utils as reader
from transformers.utils import logging as transformers_logging

from fingerpost.core.errors import ModelError
from fingerpost.core.text import shorten
from fingerpost.students.folder import Manifest, sha256

GGUF = ".gguf"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""For base models without a chat template of their own."""
CHECKPOINTING_FROM = 1_000_000_000
"""Parameters from which on activations are computed again instead of kept (gradient checkpointing)."""


@dataclass(frozen=True, slots=True)
class Base:
    """A loaded base model.

    Attributes:
        name: what the user called it: a hub name, a folder or a GGUF file.
        model: a `transformers` causal language model, in `dtype` on `device`.
        tokenizer: its tokenizer, which has a chat template.
        sha256: of a GGUF file or of a folder's weights; of a hub model, its commit.
        license: as the model states it; empty where it does not.
    """

    name: str
    model: Any
    tokenizer: Any
    sha256: str
    license: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @property
    def context(self) -> int:
        """The most tokens that the model reads."""
        return int(getattr(self.model.config, "max_position_embeddings", 2048) or 2048)

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def origin(self) -> dict[str, str]:
        """The base model as a manifest records it."""
        return {"name": self.name, "sha256": self.sha256, "license": self.license, "parameters": str(self.parameters)}


def open_base(name: str, device: torch.device | None = None) -> Base:
    """Load a base model and its tokenizer. A GGUF file's weights are unpacked.

    Args:
        name: a GGUF file, a folder, or a name on the hub.

    Raises:
        ModelError: it does not exist or cannot be loaded.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == GGUF and not path.is_file():
        raise ModelError(f"there is no base model {path}; correct the path, or copy the file there")
    where = device or best_device()
    options: dict[str, Any] = {"dtype": best_dtype(where)}
    try:
        with quiet():
            if path.suffix.lower() == GGUF:
                source, named = str(path.parent), {"gguf_file": path.name}
                options["quantization_config"] = transformers.GgufConfig(dequantize=True)
            else:
                source, named = str(path) if path.is_dir() else name, {}
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **named)
            model = transformers.AutoModelForCausalLM.from_pretrained(source, **named, **options)
    except ImportError as error:
        raise ModelError(f"{name} cannot be loaded: {shorten(str(error), 200)}") from None
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        found = shorten(f"{type(error).__name__}: {error}", 200)
        raise ModelError(
            f"the base model {name} cannot be loaded ({found}); give a GGUF file, a folder or a hub name of a causal "
            "language model"
        ) from None
    model.config.pop("quantization_config", None) if isinstance(model.config, dict) else None
    if not tokenizer.chat_template:
        tokenizer.chat_template = CHAT_TEMPLATE
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the base model {name} has no end-of-text token; choose another one")
    model.requires_grad_(False)
    model.eval()
    model.to(where)
    return Base(
        str(path.resolve()) if path.exists() else name, model, tokenizer, _identity(name, path, model), _license(path)
    )


def require_base(manifest: Manifest) -> None:
    """Check that a model's base is the one that it was trained on, if that is a file or a folder.

    Raises:
        ModelError: it is missing or has changed.
    """
    path = Path(manifest.encoder["name"])
    if path.is_absolute() and not path.exists():
        raise ModelError(f"the base model {path} is missing; copy it there, or train again")
    if path.exists() and _hash_of(path) != manifest.encoder["sha256"]:
        raise ModelError(f"the base model {path} has changed since the adapter was trained; restore it, or train again")


def best_device() -> torch.device:
    """The GPU, Apple's, or the processor."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes with it, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16 if _has_fast_bfloat16() else torch.float32
    return torch.float32


def _has_fast_bfloat16() -> bool:
    """Whether the processor has instructions for products of bfloat16, and does not emulate them."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) is not None


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' warnings and progress bars while models are loaded and saved."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    gguf = logging.getLogger("gguf")
    before = gguf.level
    bar, reader.tqdm = reader.tqdm, lambda items, **_: items  # it shows its progress whatever is asked for
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    gguf.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(level)
        gguf.setLevel(before)
        reader.tqdm = bar
        if bars:
            transformers_logging.enable_progress_bar()


def _identity(name: str, path: Path, model: Any) -> str:
    """What tells two base models of one name apart."""
    if path.exists():
        return _hash_of(path)
    return str(getattr(model.config, "_commit_hash", None) or name)


def _hash_of(path: Path) -> str:
    """The SHA-256 of a file, or of the hashes of a folder's weights."""
    if path.is_file():
        return sha256(path)
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")):
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def _license(path: Path) -> str:
    """The licence that a GGUF file or a folder's model card states; empty where none is stated."""
    if path.suffix.lower() == GGUF:
        from gguf import GGUFReader

        field = GGUFReader(path).fields.get("general.license")
        return str(field.contents()) if field is not None else ""
    card = path / "README.md"
    found = re.search(r"^license: *(\S+)", card.read_text(encoding="utf-8"), re.M) if card.is_file() else None
    return found[1] if found else ""
