"""Inference of the sentence-encoder student: tokenizer, ONNX graph, softmax. Does not need torch."""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from fingerpost.core.errors import ModelError
from fingerpost.core.predictor import BasePredictor
from fingerpost.core.text import conversation, encoder_input
from fingerpost.core.types import Message, Prediction, Usage
from fingerpost.students.folder import Manifest, copy_model

MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
BATCH = 16


class EncoderStudent(BasePredictor):
    """The sentence-encoder student as a predictor; create it with `fingerpost.load`.

    Raises:
        ModelError: on construction, if the graph cannot be loaded or does not fit the labels.
    """

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        self.name = folder.name
        self.folder = folder
        self.manifest = manifest
        self.labels = [label.name for label in manifest.labels]
        self._tokenizer = limited(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), manifest.max_tokens)
        self._session = open_session(folder / MODEL_FILE, threads)
        width = self._session.get_outputs()[0].shape[-1]
        if width != len(self.labels):
            raise ModelError(f"{folder}: the graph has {width} outputs for {len(self.labels)} labels; train it again")

    def predict(self, conversations: Sequence[str | Sequence[Message]]) -> list[Prediction]:
        """One prediction for each conversation, in order.

        `usage.latency_s` is the time of the batch in seconds, divided by its size.
        """
        predictions: list[Prediction | None] = [None] * len(conversations)
        texts = [encoder_input(conversation(messages), self.manifest.history) for messages in conversations]
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths need little padding
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            began = time.perf_counter()
            encoded = self._tokenizer.encode_batch_fast([texts[i] for i in chosen])
            probabilities = softmax(self._run(encoded) / self.manifest.temperature)
            seconds = (time.perf_counter() - began) / len(chosen)
            for i, row, tokens in zip(chosen, probabilities, encoded, strict=True):
                best = int(row.argmax())
                scores = dict(zip(self.labels, row.tolist(), strict=True))
                usage = Usage(prompt=sum(tokens.attention_mask), cost_usd=0.0, latency_s=seconds)
                predictions[i] = Prediction(self.labels[best], float(row[best]), scores, self.name, usage)
        return [prediction for prediction in predictions if prediction is not None]

    def save(self, folder: str | Path) -> None:
        """Copy the model folder.

        Raises:
            InputError: the target exists and is not a model folder.
        """
        copy_model(self.folder, Path(folder))

    def delete_folder_at_end(self) -> None:
        """Delete the temporary model folder once this object is garbage-collected."""
        weakref.finalize(self, shutil.rmtree, self.folder.parent, ignore_errors=True)

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Uncalibrated scores, shape (texts, labels), of texts rendered by `encoder_input`."""
        return self._run(self._tokenizer.encode_batch_fast(list(texts)))

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text, without special tokens, at most the number that the model reads."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _run(self, encoded: Sequence[Encoding]) -> NDArray[np.float32]:
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encoded], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encoded], dtype=np.int64),
        }
        logits: NDArray[np.float32] = self._session.run(["logits"], feed)[0]
        return logits


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the labels, shape (rows, labels)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def limited(tokenizer: Tokenizer, max_tokens: int) -> Tokenizer:
    """Set a tokenizer to truncate at `max_tokens` and pad to the longest text of a batch; returns the same tokenizer."""
    tokenizer.enable_truncation(max_length=max_tokens)
    pad = tokenizer.token_to_id("[PAD]") or 0
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad))
    return tokenizer


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU with `threads` threads that do not spin while idle.

    Raises:
        ModelError: the file is not a valid graph.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file} cannot be loaded ({str(error)[:120]}); train the model again") from None
