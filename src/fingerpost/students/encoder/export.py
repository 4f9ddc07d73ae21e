"""From torch to one ONNX graph, encoder and head, and from 32-bit floats to 8-bit integers."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
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
