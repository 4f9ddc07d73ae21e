"""From torch to one ONNX graph, encoder and head, and from 32-bit floats to 8-bit integers."""

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

VECTOR = "sentence_vector"
_exported: dict[str, Graphs] = {}


@dataclass(frozen=True, slots=True)
class Graphs:
    """An encoder with pooling as ONNX graphs, serialised: in 32-bit floats and in 8-bit integers."""

    fp32: bytes
    int8: bytes


def encoder_graphs(encoder: Encoder, network: Network) -> Graphs:
    """The graphs of a network's encoder. A pretrained one that was not fine-tuned is exported once per process."""
    key = str(sorted(encoder.origin.items()))
    frozen = network.encoder is encoder.model
    if frozen and key in _exported:
        return _exported[key]
    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        _export(encoder, network, fp32)
        _quantise(fp32, int8)
        graphs = Graphs(fp32.read_bytes(), int8.read_bytes())
    if frozen:
        _exported[key] = graphs
    return graphs


def write_graph(graph: bytes, network: Network, file: Path) -> None:
    """Write a graph with the network's head: `input_ids` and `attention_mask` (batch, tokens) in, `logits` (batch, labels) out."""
    model = onnx.load_from_string(graph)
    _attach_head(model, network)
    onnx.save(model, str(file))


def _export(encoder: Encoder, network: Network, file: Path) -> None:
    """Write the encoder with pooling, its output the unit vectors, shape (batch, width)."""
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
    del model.graph.value_info[:]  # the exporter leaves stale shapes here, which the quantiser stumbles over
    onnx.save(model, str(file))


class _Embedding(torch.nn.Module):
    """The network without its head."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.network.embed(input_ids, attention_mask).float()


def _attach_head(model: onnx.ModelProto, network: Network) -> None:
    """Append the linear head to the graph: its output becomes `logits` (batch, labels)."""
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
    graph.output.append(helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", weight.shape[1]]))


def _quantise(source: Path, target: Path) -> None:
    """Dynamic int8: weights by channel (Jacob et al. 2018), activations at run time and by token (Yao et al. 2022).

    By token, so that a text's result does not depend on the texts that it shares a batch with; and it costs less
    precision than one scale for the whole batch, which is what onnxruntime's quantiser writes.
    """
    with _quiet():
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
    model = onnx.load(str(target))
    _by_token(model.graph)
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _by_token(graph: onnx.GraphProto) -> None:
    """Give each row of the activations a scale of its own: the largest magnitude in it becomes 127.

    Replaces DynamicQuantizeLinear, which has one scale, and moves the product with that scale behind the one with the
    weights' scales: onnxruntime would fuse the two into an operator that takes one scale only.
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
    joint: dict[str, tuple[str, str]] = {}  # the product of both scales: (of the tokens, of the weights)
    done: list[onnx.NodeProto] = []
    for node in nodes:
        inputs = ["token_zero" if each in zeros else each for each in node.input]
        mine = next((each for each in inputs if each in scales), None) if node.op_type == "Mul" else None
        shared = next((each for each in inputs if each in joint), None)
        if mine is not None:
            joint[node.output[0]] = (mine, next(each for each in inputs if each != mine))
        elif shared is not None:
            product = next(each for each in inputs if each != shared)
            tokens, weights = joint[shared]
            done.append(helper.make_node("Mul", [product, weights], [f"{node.output[0]}_weights"]))
            done.append(helper.make_node("Mul", [f"{node.output[0]}_weights", tokens], [node.output[0]]))
        else:
            node.input[:] = inputs
            done.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(done)


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
