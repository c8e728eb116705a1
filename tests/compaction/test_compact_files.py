"""A finished file loses what does not matter, and computes the same."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from prunec.deploy.compaction.compact import compact_model


def _model(dead: int) -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((8, 3, 3, 3)).astype(np.float32)
    weight[:dead] = 0
    bias = generator.uniform(0.5, 1, 8).astype(np.float32)
    second = generator.standard_normal((4, 8, 3, 3)).astype(np.float32)
    tensors = {"w": weight, "b": bias, "v": second}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], pads=[1] * 4),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 4, 8, 8))
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", [given], [made], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def test_constants_at_a_padded_border_are_carried() -> None:
    """One of five constant channels stays, and the outputs are the same."""
    model = _model(5)
    compacted = compact_model(model)
    assert sum(compacted.removed.values()) == 4
    x = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)
    ours, theirs = (
        onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0]
        for m in (model, compacted.model)
    )
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_nothing_to_cut_is_the_same_file() -> None:
    """A file without dead channels is returned as it was given."""
    model = _model(0)
    compacted = compact_model(model)
    assert not compacted.changed
    assert compacted.model.SerializeToString() == model.SerializeToString()
