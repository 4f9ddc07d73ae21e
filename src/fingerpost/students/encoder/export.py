"""Exports encoder and head to one ONNX graph, in 32-bit floats and quantised to 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from fingerpost.students.encoder.network import Encoder, Network
from fingerpost.students.encoder.predict import VECTOR

_graph_cache: dict[str, Graphs] = {}


@dataclass(frozen=True, slots=True)
class Graphs:
    """An encoder with pooling as serialised ONNX graphs, in 32-bit floats and in 8-bit integers."""

    fp32: bytes
    int8: bytes


def encoder_graphs(encoder: Encoder, network: Network) -> Graphs:
    """Export a network's encoder. An encoder that was not fine-tuned is exported only once per process."""
    key = str((sorted(encoder.origin.items()), network.parts))
    frozen = network.encoder is encoder.model
    if frozen and key in _graph_cache:
        return _graph_cache[key]
    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        _export(encoder, network, fp32)
        _quantise(fp32, int8)
        graphs = Graphs(fp32.read_bytes(), int8.read_bytes())
    if frozen:
        _graph_cache[key] = graphs
    return graphs


def write_graph(graph: bytes, network: Network, file: Path) -> None:
    """Write an encoder graph together with the network's head to an ONNX file.

    Its inputs are `input_ids` and `attention_mask`, shape (batch, tokens); its outputs are `logits`, shape (batch, labels), and
    the texts' unit vectors, shape (batch, width).
    """
    model = onnx.load_from_string(graph)
    _attach_head(model, network)
    onnx.save(model, str(file))


def _export(encoder: Encoder, network: Network, file: Path) -> None:
    """Write the encoder with pooling to an ONNX file. Its output are unit vectors, shape (batch, width)."""
    example = encoder.tokens(["an example", "shorter"])
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    with _quiet():
        torch.onnx.export(
            _Embedding(network).eval(),
            (example["input_ids"], example["attention_mask"]),
            str(file),
            input_names=["input_ids", "attention_mask"],
            output_names=[VECTOR],
            dynamic_shapes={"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(file))
    del model.graph.value_info[:]  # stale shapes from the exporter, which make the quantiser fail
    onnx.save(model, str(file))


class _Embedding(torch.nn.Module):
    """The network without its head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.network.embed(input_ids, attention_mask).float()


def _attach_head(model: onnx.ModelProto, network: Network) -> None:
    """Append the linear head to the graph, so that its first output becomes `logits`, shape (batch, labels)."""
    weight = network.head.weight.detach().numpy().T.astype(np.float32)
    bias = network.head.bias.detach().numpy().astype(np.float32)
    graph = model.graph
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(weight), "head_weight"),
            numpy_helper.from_array(bias, "head_bias"),
        ]
    )
    graph.node.extend(
        [
            helper.make_node("MatMul", [VECTOR, "head_weight"], ["head_product"], "head_matmul"),
            helper.make_node("Add", ["head_product", "head_bias"], ["logits"], "head_add"),
        ]
    )
    del graph.output[:]
    for name, width in (("logits", weight.shape[1]), (VECTOR, weight.shape[0])):
        graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", width]))


def _quantise(source: Path, target: Path) -> None:
    """Dynamic int8 quantisation: weights per channel (Jacob et al. 2018), activations per token (Yao et al. 2022).

    Weights use 7 of the 8 bits. Processors without VNNI add two products of an activation and a weight in 16 bits, and
    clip the sum; with weights from -64 to 64 it always fits, so every processor computes the same integers.

    onnxruntime's quantiser writes one activation scale per batch. Scales per token are more precise, and make the result
    of a text independent of the other texts in its batch.
    """
    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    model = onnx.load(str(target))
    _quantise_per_token(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _quantise_per_token(graph: onnx.GraphProto) -> None:
    """Quantise each token's activations with a scale of its own, which maps their largest magnitude to 127.

    This replaces DynamicQuantizeLinear, which uses a single scale. It also multiplies by the scales of the weights and of
    the tokens in two steps, because onnxruntime would fuse a joint product into an operator that takes a single scale.
    """
    constants = {"axis": np.array([-1]), "unit": np.float32(1 / 127), "least": np.float32(1e-12),
                 "middle": np.float32(128), "zero": np.uint8(128)}  # fmt: skip
    graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"token_{name}") for name, value in constants.items()
    )
    scales: set[str] = set()
    zeros: set[str] = set()
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "DynamicQuantizeLinear":
            nodes.append(node)
            continue
        (x,), (quantised, scale, zero), name = node.input, node.output, node.name
        scales.add(scale)
        zeros.add(zero)
        nodes += [
            helper.make_node("Abs", [x], [f"{name}_abs"]),
            helper.make_node("ReduceMax", [f"{name}_abs", "token_axis"], [f"{name}_max"]),
            helper.make_node("Mul", [f"{name}_max", "token_unit"], [f"{name}_unit"]),
            helper.make_node("Max", [f"{name}_unit", "token_least"], [scale]),
            helper.make_node("Div", [x, scale], [f"{name}_div"]),
            helper.make_node("Add", [f"{name}_div", "token_middle"], [f"{name}_add"]),
            helper.make_node("Round", [f"{name}_add"], [f"{name}_round"]),
            helper.make_node("Cast", [f"{name}_round"], [quantised], to=onnx.TensorProto.UINT8),
        ]
    scale_products: dict[str, tuple[str, str]] = {}  # name of a product: (scales of the tokens, scales of the weights)
    rewritten: list[onnx.NodeProto] = []
    for node in nodes:
        inputs = ["token_zero" if name in zeros else name for name in node.input]
        token_scale = next((name for name in inputs if name in scales), None) if node.op_type == "Mul" else None
        shared = next((name for name in inputs if name in scale_products), None)
        if token_scale is not None:
            scale_products[node.output[0]] = (token_scale, next(name for name in inputs if name != token_scale))
        elif shared is not None:
            product = next(name for name in inputs if name != shared)
            tokens, weights = scale_products[shared]
            rewritten.append(helper.make_node("Mul", [product, weights], [f"{node.output[0]}_weights"]))
            rewritten.append(helper.make_node("Mul", [f"{node.output[0]}_weights", tokens], [node.output[0]]))
        else:
            node.input[:] = inputs
            rewritten.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(rewritten)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output of the exporters. Errors are still raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)
