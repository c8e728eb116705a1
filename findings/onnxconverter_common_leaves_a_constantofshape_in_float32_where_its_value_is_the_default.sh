#!/usr/bin/env bash
# Seen on 2026-11-28 with onnxconverter-common 1.16.0, onnx 1.23.2 and onnxruntime 1.32.0, x86-64.
#
# What is done: float16.convert_float_to_float16 halves a network that adds a ConstantOfShape to a
# convolution. Its attribute "value" may be left out: it is a float32 zero then, as the standard says.
#
# What one would expect: a file that loads, as for the same network with that zero written down.
#
# What happens: only a "value" that is written down is halved. Without it the operator goes on making
# float32, the value's type in the file is float16, and neither onnx.checker's full check nor
# onnxruntime takes the file. The converter says nothing.
#
# Who is hurt: whoever halves a network with zeros of a computed shape: first states of recurrent
# layers, masks, weights that are put together from their non-zero values.
#
# What it printed, twice:
#   zero written down: loads, largest difference 0.0003 of the largest output
#   zero left out: onnxruntime refuses the file: tensor(float16) of output arg (zeros) does not match
#   zero left out: the full check refuses the file: Inferred elem type differs
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
weight = numpy_helper.from_array(rng.standard_normal((3, 3, 3, 3)).astype(np.float32), "weight")
sizes = ["n", 3, 8, 8]


def network(**value):
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["sum"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["sum"], ["shape"], "shape"),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"], "fill", **value),
        helper.make_node("Add", ["sum", "zeros"], ["y"], "add"),
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


written = network(value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
wanted = run(written)
apart = np.abs(run(convert_float_to_float16(written, keep_io_types=True)) - wanted).max()
share = apart / np.abs(wanted).max()
print(f"zero written down: loads, largest difference {share:.4f} of the largest output")

left_out = network()
assert np.array_equal(run(left_out), wanted)
half = convert_float_to_float16(left_out, keep_io_types=True)
refused = []
try:
    run(half)
except Exception as error:
    expected = "tensor(float16)) of output arg (zeros)" in str(error)
    said = "tensor(float16) of output arg (zeros) does not match" if expected else str(error)
    print("zero left out: onnxruntime refuses the file:", said)
    refused.append(expected)
try:
    onnx.checker.check_model(half, full_check=True)
except Exception as error:
    expected = "Inferred elem type differs" in str(error)
    print("zero left out: the full check refuses the file:", "Inferred elem type differs" if expected else error)
    refused.append(expected)
sys.exit(0 if refused == [True, True] and share < 0.01 else 1)
PYTHON
