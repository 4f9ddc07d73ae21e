"""A loaded base model with the adapters of all students that use it; one of them is active at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fingerpost.core.errors import ModelError
from fingerpost.students.folder import ADAPTER
from fingerpost.students.lora.base import Base, open_base, quiet

_runners: WeakValueDictionary[str, Runner] = WeakValueDictionary()
_loading = threading.Lock()
_numbers = count()


class Runner:
    """A base model and its adapters. Only one thread computes at a time."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._lock = threading.RLock()
        self._peft: Any = None

    def add(self, folder: Path) -> str:
        """Load the adapter in a folder; returns its name here.

        Raises:
            ModelError: the adapter does not fit the base model.
        """
        name = f"adapter{next(_numbers)}"
        try:
            with self._lock, quiet():
                if self._peft is None:
                    self._peft = PeftModel.from_pretrained(self.base.model, str(folder), adapter_name=name)
                else:
                    self._peft.load_adapter(str(folder), adapter_name=name)
        except (RuntimeError, ValueError, KeyError) as error:
            raise ModelError(
                f"the adapter in {folder} does not fit the base model {self.base.name} ({str(error)[:120]}); give the "
                "base model that it was trained on"
            ) from None
        return name

    def remove(self, name: str) -> None:
        """Free an adapter."""
        with self._lock, quiet():
            if self._peft is not None and name in self._peft.peft_config and len(self._peft.peft_config) > 1:
                self._peft.delete_adapter(name)

    @contextmanager
    def active(self, name: str) -> Iterator[Any]:
        """The model with this adapter, for this thread alone."""
        with self._lock:
            if self._peft.active_adapter != name:
                self._peft.set_adapter(name, inference_mode=True)
            yield self._peft.get_base_model().eval()


def runner_of(base: str, sha256: str) -> Runner:
    """The runner of a base model, loaded where it is not.

    Raises:
        ModelError: the base model cannot be loaded, or is not the one that the adapter was trained on.
    """
    with _loading:
        runner = _runners.get(f"{base}/{sha256}")
        if runner is None:
            runner = _runners[f"{base}/{sha256}"] = Runner(open_base(base))
        if runner.base.sha256 != sha256:
            raise ModelError(
                f"the base model {base} has changed since the adapter was trained (its hash differs); restore it, or train again"
            )
        return runner


def save_tensors(file: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors; an existing file is replaced as a whole.

    Raises:
        OSError: there is no room, or the folder cannot be written to.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        save_file({name: one.detach().contiguous().cpu() for name, one in tensors.items()}, part, metadata=metadata)
        part.replace(file)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise OSError(f"{file.name} cannot be written ({error}); make room on the disk, and train again") from None


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write a `peft` model's adapter, in the format of `peft`."""
    config: LoraConfig = model.peft_config[model.active_adapter]
    adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_tensors(folder / ADAPTER, adapter, {"format": "pt"})
    config.inference_mode, config.base_model_name_or_path = True, base
    config.save_pretrained(str(folder))


def adapter_tensors(folder: Path) -> dict[str, Any]:
    """The adapter's tensors by name, as torch tensors on the processor."""
    with safe_open(folder / ADAPTER, "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - this is no dictionary
