"""The integers of the 8-bit graph: the same on every processor, because no sum can be clipped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from fingerpost.students.folder import MODEL_FILE, TOKENIZER_FILE

LARGEST_ACTIVATION, LARGEST_SUM = 255, 2**15 - 1


def integer_products(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type == "MatMulInteger"]


def weights_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def clipped_sums(weights: np.ndarray) -> int:
    """How many sums of two products a processor without VNNI would clip to 16 bits, with the largest activations."""
    pairs = np.abs(weights[: len(weights) // 2 * 2].astype(np.int64)).reshape(-1, 2, weights.shape[1]).sum(1)
    return int((LARGEST_ACTIVATION * pairs > LARGEST_SUM).sum())


def test_no_pair_of_products_can_be_clipped(student: Path) -> None:
    model = onnx.load(str(student / MODEL_FILE))
    weights = weights_of(model)
    products = integer_products(model)
    assert products
    assert all(clipped_sums(weights[node.input[1]]) == 0 for node in products)
    assert clipped_sums(np.full((4, 3), 127, dtype=np.int8)) == 6  # with all 8 bits they could be


def test_the_graphs_integer_products_are_exact(student: Path) -> None:
    model = onnx.load(str(student / MODEL_FILE))
    weights, products = weights_of(model), integer_products(model)
    computed = {name for node in products for name in [*node.input, *node.output] if name not in weights}
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in sorted(computed))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    encoded = Tokenizer.from_file(str(student / TOKENIZER_FILE)).encode("where is my parcel, and why is it late?")
    feed = {"input_ids": np.array([encoded.ids]), "attention_mask": np.array([encoded.attention_mask])}
    names = [output.name for output in session.get_outputs()]
    values = {**weights, **dict(zip(names, session.run(names, feed), strict=True))}
    for node in products:
        a, b = values[node.input[0]].astype(np.int64), values[node.input[1]].astype(np.int64)
        zeros = [values[name].astype(np.int64) for name in node.input[2:]] + [np.int64(0)] * 2
        assert np.array_equal(values[node.output[0]], (a - zeros[0]) @ (b - zeros[1])), node.name


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_activations_are_multiplied_exactly_on_this_processor(student: Path, sign: int) -> None:
    model = onnx.load(str(student / MODEL_FILE))
    weights = weights_of(model)
    for node in integer_products(model):
        matrix = weights[node.input[1]]
        a = np.where(sign * matrix[:, :1].T.astype(np.int64) > 0, LARGEST_ACTIVATION, 0).astype(np.uint8)
        graph = helper.make_graph(
            [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
            "product",
            [helper.make_tensor_value_info("a", TensorProto.UINT8, list(a.shape))],
            [helper.make_tensor_value_info("y", TensorProto.INT32, None)],
            [numpy_helper.from_array(matrix, "b")],
        )
        alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        session = onnxruntime.InferenceSession(alone.SerializeToString(), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"a": a})
        assert np.array_equal(found, a.astype(np.int64) @ matrix.astype(np.int64))
