"""From torch to one ONNX graph, encoder and head, and from 32-bit floats to 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

from fingerpost.students.encoder.network import Encoder, Network


def export_graph(encoder: Encoder, network: Network, file: Path) -> None:
    """Write the graph: `input_ids` and `attention_mask` (batch, tokens) in, `logits` (batch, labels) out."""
    example = encoder.tokens(["what an example looks like", "shorter"])
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with _quiet():
        torch.onnx.export(
            network.eval(),
            (example["input_ids"], example["attention_mask"]),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_shapes={"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(file))
    del model.graph.value_info[:]  # the exporter leaves stale shapes here, which the quantiser stumbles over
    onnx.save(model, str(file))


def quantise(source: Path, target: Path) -> None:
    """Dynamic int8: weights by channel, activations at run time (Jacob et al. 2018)."""
    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' chatter off the user's terminal; what goes wrong is raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
