"""Random networks with random plantings, as files: equal, and nothing left the second time."""

from __future__ import annotations

import numpy as np
import pytest
from foreign import run
from onnx import ModelProto, TensorProto, helper, numpy_helper
from sampling import sampled

from prunec.cost.onnx_graph import count_known
from prunec.deploy.compaction.compact import compact_model
from prunec.deploy.compaction.proof import differences, random_inputs

ACTIVATIONS = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus", "Identity")


class Drawn:
    """A graph that grows layer by layer; some filters of every layer are zero."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[object] = []
        self.tensors: list[object] = []
        self.sizes = {"x": 3}

    def name(self) -> str:
        return f"v{len(self.sizes)}_{len(self.nodes)}"

    def put(self, array: np.ndarray) -> str:
        """Store a tensor, as an initialiser or in a Constant."""
        name = f"t{len(self.tensors)}_{len(self.nodes)}"
        tensor = numpy_helper.from_array(array.astype(np.float32), name)
        if self.rng.random() < 0.3:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.tensors.append(tensor)
        return name

    def add(self, operator: str, inputs: list[str], channels: int, **settings: object) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(operator, inputs, [name], **settings))
        self.sizes[name] = channels
        return name

    def convolution(self, source: str, channels: int, groups: int = 1) -> str:
        kernel = int(self.rng.choice([1, 3]))
        shape = (channels, self.sizes[source] // groups, kernel, kernel)
        weight = self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
        weight[self.rng.random(channels) < 0.4] = 0
        weight[:, self.rng.random(shape[1]) < 0.2] = 0
        inputs = [source, self.put(weight)]
        if self.rng.random() < 0.7:
            inputs.append(self.put(self.rng.standard_normal(channels)))
        pads = [kernel // 2] * 4
        made = self.add("Conv", inputs, channels, pads=pads, group=groups)
        if self.rng.random() < 0.5:
            made = self.norm(made)
        return self.add(str(self.rng.choice(ACTIVATIONS)), [made], channels)

    def norm(self, source: str) -> str:
        channels = self.sizes[source]
        draws = [self.rng.standard_normal(channels) for _ in range(3)]
        factors = [self.put(d) for d in (*draws, self.rng.uniform(0.5, 1.5, channels))]
        return self.add("BatchNormalization", [source, *factors], channels)

    def step(self, source: str) -> str:
        """One more part: a layer, a residual, a concatenation, a gate, a depthwise layer."""
        kind, channels = self.rng.integers(5), self.sizes[source]
        if kind == 0:
            other = self.convolution(source, channels)
            return self.add("Add", [source, other], channels)
        if kind == 1:
            other = self.convolution(source, 6)
            return self.add("Concat", [source, other], channels + 6, axis=1)
        if kind == 2:
            pooled = self.add("GlobalAveragePool", [source], channels)
            gate = self.add("Sigmoid", [self.convolution(pooled, channels)], channels)
            return self.add("Mul", [source, gate], channels)
        if kind == 3:
            return self.convolution(source, channels, groups=channels)
        return self.convolution(source, int(self.rng.integers(4, 12)))


def drawn(seed: int) -> ModelProto:
    net = Drawn(seed)
    value = net.convolution("x", 8)
    for _ in range(int(net.rng.integers(2, 6))):
        value = net.step(value)
    pooled = net.add("GlobalAveragePool", [value], net.sizes[value])
    flat = net.add("Flatten", [pooled], net.sizes[value])
    matrix = net.put(net.rng.standard_normal((net.sizes[value], 5)))
    net.nodes.append(helper.make_node("MatMul", [flat, matrix], ["y"]))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", 5))
    graph = helper.make_graph(net.nodes, "g", [given], [made], net.tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("seed", sampled(range(60), 10, 5))
def test_outputs_stay_and_the_second_time_finds_nothing(seed: int) -> None:
    model = drawn(seed)
    compacted = compact_model(model)
    worst = differences(model, compacted.model, list(random_inputs(model, {}, None)))
    assert all(one.share <= 1 for one in worst), worst
    assert count_known(compacted.model).macs <= count_known(model).macs
    assert not compact_model(compacted.model).changed
    x = np.zeros((2, 3, 8, 8), np.float32)
    np.testing.assert_allclose(run(compacted.model, x)[0], run(model, x)[0], rtol=1e-3, atol=1e-4)
