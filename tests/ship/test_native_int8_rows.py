"""Integer linear layers, means, concatenations and sums make what whole numbers say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from int8_graphs import F32, Graph, Rounding, compiled
from native_nets import need_compiler
from test_native_int8 import LEVELS

from prunec.deploy.native.library import load
from prunec.deploy.runner import once

GIVEN, OTHER, MADE = Rounding(0.02, 100), Rounding(0.013, 0), Rounding(0.05, 90)


def ones(real: np.ndarray, made: Rounding) -> np.ndarray:
    """Return the values of the bytes that sums in steps of the output become."""
    return made.undone(np.clip(np.rint(real) + made.zero, 0, 255).astype(np.int64))


def check(graph: Graph, expected: list[np.ndarray], calls: dict[str, int], folder: Path) -> None:
    """Require the expected bits on every kind of processor, of these kernels."""
    path = compiled(graph.save(folder / "model.onnx"), folder / "c")
    source = path.read_text()
    assert {call: source.count(call) for call in calls} == calls
    for flags in LEVELS.values():
        made = once(load(path, flags), graph.arrays)
        for ours, wanted in zip(made, expected, strict=True):
            assert np.array_equal(ours, wanted), flags


@need_compiler
def test_linear_layers(tmp_path: Path) -> None:
    """With and without zeros, a bias and an activation."""
    graph, expected, rng = Graph([]), [], np.random.default_rng(0)
    forms = [
        (True, 70, 1000, 0.1),
        (True, 64, 33, 1.0),
        (False, 65, 17, 1.0),
        (False, 300, 6, 0.05),
    ]
    for number, (gemm, inputs, outputs, density) in enumerate(forms):
        name = f"l{number}"
        x = rng.standard_normal((1, inputs)).astype(F32)
        weight = rng.integers(-64, 65, (outputs, inputs)) * (
            rng.random((outputs, inputs)) < density
        )
        scales = rng.uniform(0.01, 0.02, outputs).astype(F32)
        bias = rng.integers(-3000, 3000, outputs).astype(np.int32)
        read = graph.rounded(graph.given(f"{name}_x", x), GIVEN)
        steps = scales.astype(np.float64) * GIVEN.scale
        if gemm:
            operands = [graph.stored(f"{name}_w", weight.astype(np.int8), scales),
                        graph.stored(f"{name}_b", bias, steps.astype(F32))]  # fmt: skip
            made = graph.node("Gemm", [read, *operands], f"{name}_y", transB=1)
            made = graph.node("Relu", [made], f"{name}_a") if number else made
        else:
            stored = graph.stored(f"{name}_w", weight.astype(np.int8).T, scales, axis=1)
            made, bias = graph.node("MatMul", [read, stored], f"{name}_y"), 0 * bias
        graph.result(graph.rounded(made, MADE), x.ndim)
        sums = (GIVEN.of(x) - GIVEN.zero) @ weight.T + bias
        real = ones(sums.astype(F32) * (steps / MADE.scale).astype(F32), MADE)
        expected.append(np.maximum(real, 0) if gemm and number else real)
    check(graph, expected, {"pn_sparse_rows(": 2, "q->rows(": 2}, tmp_path)


@need_compiler
def test_means_of_planes(tmp_path: Path) -> None:
    """Behind another shape too, and read by a linear layer or as floats."""
    graph, expected, rng = Graph([]), [], np.random.default_rng(0)
    for number, sizes in enumerate([(7, 7), (5, 30), (13,)]):
        x = rng.standard_normal((1, 37, *sizes)).astype(F32)
        read = graph.rounded(graph.given(f"m{number}_x", x), GIVEN)
        axes = list(range(2, x.ndim))
        made = graph.node("ReduceMean", [read], f"m{number}", axes=axes, keepdims=1)
        shape = graph.constant(f"m{number}_shape", np.array([-1, 37]))
        made = graph.node("Reshape", [made, shape], f"m{number}_row")
        graph.result(graph.rounded(made, OTHER), 2)
        sums = (GIVEN.of(x) - GIVEN.zero).sum(tuple(axes))
        scale = F32(GIVEN.scale / int(np.prod(sizes)) / OTHER.scale)
        expected.append(ones(sums.astype(F32) * scale, OTHER))
    check(graph, expected, {"pn_means(": 3}, tmp_path)


@need_compiler
def test_concatenations_and_sums(tmp_path: Path) -> None:
    """Of tensors with scales of their own, in steps of the result's."""
    graph, expected, rng = Graph([]), [], np.random.default_rng(0)
    x = [rng.standard_normal((1, 5, 9, 14)).astype(F32) for _ in range(2)]
    how = [GIVEN, OTHER]
    read = [
        graph.rounded(graph.given(f"x{i}", each), own)
        for i, (each, own) in enumerate(zip(x, how, strict=True))
    ]
    parts = [
        (own.of(each) - own.zero).astype(F32) * F32(own.scale / MADE.scale)
        for each, own in zip(x, how, strict=True)
    ]
    for operator, options in (("Concat", {"axis": 1}), ("Add", {})):
        made = graph.node(operator, read, operator, **options)
        graph.result(graph.rounded(made, MADE), 4)
    expected = [ones(np.concatenate(parts, 1), MADE), ones(parts[0] + parts[1], MADE)]
    check(graph, expected, {"q->rescaled(": 3}, tmp_path)
