#!/usr/bin/env bash
# Seen on 2026-11-28 with onnxruntime 1.32.0 and onnx 1.23.2, x86-64.
#
# What is done: onnxruntime.transformers.float16.convert_float_to_float16 with keep_io_types=True
# halves a network of three named nodes.
#
# What one would expect: a file whose nodes stand in an order in which each reads what was made
# before it, as the ONNX standard demands.
#
# What happens: the cast of the input is appended at the end of the list, behind the nodes that read
# it. onnxruntime sorts nodes when it loads a file and says nothing; onnx.checker refuses the file,
# ONNX's reference implementation cannot run it, and tools that walk the list meet an unknown value.
#
# Who is hurt: whoever halves a network with onnxruntime's own tool and goes on with another: a
# checker in CI, an optimiser, a runtime that takes the standard at its word.
#
# What it printed, twice:
#   order: Conv Relu Add Cast Cast, the input's cast is number 3
#   onnxruntime: runs, largest difference 0.0002 of the largest output
#   onnx.checker: Nodes in a graph must be topologically sorted
#   onnx.reference: RuntimeError
#
# Exits with 0 as long as that is so, with 1 when the behaviour has changed.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.transformers.float16 import convert_float_to_float16

rng = np.random.default_rng(0)
image = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
weight = numpy_helper.from_array(rng.standard_normal((3, 3, 1, 1)).astype(np.float32), "weight")
sizes = ["n", 3, 8, 8]
nodes = [
    helper.make_node("Conv", ["x", "weight"], ["left"], "conv"),
    helper.make_node("Relu", ["x"], ["right"], "relu"),
    helper.make_node("Add", ["left", "right"], ["y"], "add"),
]
graph = helper.make_graph(
    nodes,
    "network",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
    [weight],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
onnx.checker.check_model(model, full_check=True)


def run(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": image})[0]


wanted = run(model)
half = convert_float_to_float16(model, keep_io_types=True)
order = [node.op_type for node in half.graph.node]
cast = next(i for i, node in enumerate(half.graph.node) if node.input[0] == "x")
print("order:", *order[:-1], f"{order[-1]}, the input's cast is number {cast}")
share = np.abs(run(half) - wanted).max() / np.abs(wanted).max()
print(f"onnxruntime: runs, largest difference {share:.4f} of the largest output")
unsorted = unknown = False
try:
    onnx.checker.check_model(half)
except onnx.checker.ValidationError as error:
    unsorted = "topologically sorted" in str(error)
    print("onnx.checker:", str(error).split(",")[0])
try:
    ReferenceEvaluator(half).run(None, {"x": image})
except RuntimeError as error:
    unknown = "Unable to find input" in str(error)
    print("onnx.reference:", type(error).__name__)
sys.exit(0 if cast > 0 and unsorted and unknown and share < 0.01 else 1)
PYTHON
