#!/usr/bin/env bash
# Seen on 2026-11-28 with onnxconverter-common 1.16.0, onnx 1.23.2 and onnxruntime 1.32.0, x86-64.
#
# What is done: float16.convert_float_to_float16 with keep_io_types=True halves a network of three
# nodes, in which a convolution and a ReLU both read the input. The nodes have no names: ONNX makes
# names optional, and onnx.checker finds the network valid.
#
# What one would expect: a file that loads and computes the same to half precision, as it does for
# the same network with names.
#
# What happens: the cast that is put between the input and each of its readers is called after the
# reader's name. Without names both casts, and the values that they make, are called alike: the file
# is not in single static assignment any more. onnx.checker refuses it, and onnxruntime does not load
# it. The converter says nothing.
#
# Who is hurt: whoever makes ONNX by onnx.helper, or by a tool that leaves names out, with a residual
# connection or several heads on the input, and halves it for a phone.
#
# What it printed, twice:
#   named nodes: loads, largest difference 0.0002 of the largest output
#   unnamed nodes: onnxruntime refuses the file: two nodes with same node name (x_cast_to_).
#   unnamed nodes: onnx.checker refuses the file: SSA
#
# Exits with 0 as long as that is so, with 1 when the behaviour has changed.
set -euo pipefail

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet onnxconverter-common==1.16.0 onnxruntime==1.32.0 \
    onnx==1.23.2 numpy==2.4.6
"$folder/environment/bin/python" - <<'PYTHON'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxconverter_common.float16 import convert_float_to_float16

rng = np.random.default_rng(0)
image = rng.standard_normal((1, 3, 8, 8)).astype(np.float32)
weight = numpy_helper.from_array(rng.standard_normal((3, 3, 1, 1)).astype(np.float32), "weight")
sizes = ["n", 3, 8, 8]


def network(*names):
    conv, relu, add = names
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["left"], conv),
        helper.make_node("Relu", ["x"], ["right"], relu),
        helper.make_node("Add", ["left", "right"], ["y"], add),
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
    return model


def run(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": image})[0]


named = network("conv", "relu", "add")
wanted = run(named)
apart = np.abs(run(convert_float_to_float16(named, keep_io_types=True)) - wanted).max()
share = apart / np.abs(wanted).max()
print(f"named nodes: loads, largest difference {share:.4f} of the largest output")

unnamed = network("", "", "")
assert np.array_equal(run(unnamed), wanted)
half = convert_float_to_float16(unnamed, keep_io_types=True)
refused = []
try:
    run(half)
except Exception as error:
    said = str(error).split("Error: ")[-1]
    print("unnamed nodes: onnxruntime refuses the file:", said)
    refused.append("two nodes with same node name" in said)
try:
    onnx.checker.check_model(half)
except onnx.checker.ValidationError as error:
    print("unnamed nodes: onnx.checker refuses the file:", "SSA" if "SSA" in str(error) else error)
    refused.append("SSA" in str(error))
sys.exit(0 if refused == [True, True] and share < 0.01 else 1)
PYTHON
