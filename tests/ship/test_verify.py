"""A healthy file passes; each way to spoil one fails in its own check, which says what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from rich.console import Console
from ship_nets import METADATA, TINY_COST, Shipped, Verify, tiny

from prunec.artifact import Artifact
from prunec.cost.onnx_graph import count_onnx
from prunec.deploy.checks import Report, render
from prunec.deploy.exporter import Source
from prunec.deploy.timing import Latency
from prunec.exporters.to_onnx import ToOnnx
from prunec.models.state import roles
from prunec.recipe import Budget, VerifySpec


def failures(report: Report) -> dict[str, str]:
    return {check.name: check.message for check in report.failures}


def edit(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], None]) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.raw_data = values.tobytes()


def node(model: onnx.ModelProto, operator: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == operator)


def test_a_healthy_file_passes_every_check(verify: Verify, shipped: Shipped) -> None:
    sha256 = hashlib.sha256(shipped.path.read_bytes()).hexdigest()
    budget = Budget(macs_ratio=1.0, bytes=10**6, accuracy=0.0, latency_ratio=1.0)
    report = verify(
        spec=VerifySpec(budget=budget),
        dense_macs=TINY_COST.macs,
        manifest={"sha256": sha256, "recipe_digest": METADATA["prunec.recipe_digest"]},
        latency=Latency(1.0, 2.0, 0.5),
    )
    assert report.passed, failures(report)
    names = [check.name for check in report.checks]
    assert names == [
        "readable",
        "recipe digest",
        "weights digest",
        "inputs",
        "outputs",
        "file digest",
        "graph digest",
        "weights equal",
        "MACs",
        "non-zero MACs",
        "MACs in metadata",
        "parameters",
        "non-zero parameters",
        "outputs, random",
        "outputs, test split",
        "top-1 agreement",
        "accuracy, percent",
        "budget: MACs / dense",
        "budget: bytes",
        "budget: accuracy",
        "budget: latency / dense",
    ]
    assert report.not_checked == ()
    assert report.details.missing == ()


def test_one_changed_weight(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values[3, 1, 0, 2] += 0.5

    edit(proto, "0.weight", change)
    failed = failures(verify(proto))
    assert failed.keys() >= {"weights equal", "outputs, random", "outputs, test split"}
    assert (
        "0.weight differs in 1 of 216 elements, by at most 0.5: [3, 1, 0, 2]"
        in (failed["weights equal"])
    )
    assert not failed.keys() & {"graph digest", "weights digest", "MACs", "parameters"}


def test_a_weight_off_by_one_bit(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values.reshape(-1).view(np.uint32)[0] ^= 1

    edit(proto, "9.bias", change)
    assert list(failures(verify(proto))) == ["weights equal"]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_swapped_channel(verify: Verify, proto: onnx.ModelProto, axis: int) -> None:
    def change(values: np.ndarray) -> None:
        view = np.moveaxis(values, axis, 0)
        view[[3, 5]] = view[[5, 3]]

    edit(proto, "6.weight", change)
    failed = failures(verify(proto))["weights equal"]
    assert failed == f"channels 3 and 5 of 6.weight (axis {axis}) are swapped."


def test_permuted_channels(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values[[1, 2, 7]] = values[[7, 1, 2]]

    edit(proto, "3.weight", change)
    failed = failures(verify(proto))["weights equal"]
    assert failed == "channels 1, 2 and 7 of 3.weight (axis 0) are permuted."


def test_a_zeroed_weight_shows_in_the_counts_too(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values[0, 0] = 0

    edit(proto, "9.weight", change)
    assert {"weights equal", "non-zero MACs", "non-zero parameters"} <= failures(
        verify(proto)
    ).keys()


def test_a_difference_is_reported_beside_the_size_of_the_outputs(
    verify: Verify, proto: onnx.ModelProto
) -> None:
    def change(values: np.ndarray) -> None:
        values += 1000

    edit(proto, "9.bias", change)
    said = failures(verify(proto))["outputs, test split"]
    size, gap, bound = re.fullmatch(
        r"outputs of up to (\S+) differ by (\S+) on the test split; rounding explains (\S+)\.", said
    ).groups()
    assert 0 < float(size) < 100
    assert float(gap) == 1e3
    assert 0 < float(bound) < 1e-4 * float(size)


def test_a_nan_is_a_failure(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values[:] = np.nan

    edit(proto, "9.bias", change)
    report = verify(proto)
    failed = failures(report)
    assert "the file's outputs are not finite" in failed["outputs, random"]
    assert "the file's outputs are not finite" in failed["outputs, test split"]
    assert "top-1 agreement" in failed
    json.loads(report.to_json(), parse_constant=pytest.fail)


def test_edited_mac_metadata(verify: Verify, proto: onnx.ModelProto) -> None:
    next(entry for entry in proto.metadata_props if entry.key == "prunec.macs").value = "1234"
    failed = failures(verify(proto))
    assert list(failed) == ["MACs in metadata"]
    assert "the MAC metadata was edited: it says 1234" in failed["MACs in metadata"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_file(verify: Verify, shipped: Shipped, share: float) -> None:
    data = shipped.path.read_bytes()
    report = verify(data[: int(share * len(data))])
    assert [check.name for check in report.checks] == ["readable"]
    assert "truncated or not an ONNX file" in report.checks[0].message


def test_a_tail_cut_off_between_fields(verify: Verify, proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]
    failed = failures(verify(proto))
    assert "truncated, or not exported by prunec" in failed["weights digest"]


def test_a_missing_file(verify: Verify, tmp_path: Path) -> None:
    report = verify(tmp_path / "none.onnx")
    assert "cannot be read: No such file" in failures(report)["readable"]


def test_missing_external_weights(verify: Verify, proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=64)
    assert verify(path).passed
    (tmp_path / "w.bin").unlink()
    assert "keeps weights in w.bin, which is missing" in failures(verify(path))["readable"]


def test_another_models_file(verify: Verify, shipped: Shipped, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    ToOnnx()(Source(Artifact(tiny(seed=1), shipped.example), METADATA), path)
    failed = failures(verify(path))
    assert failed["weights digest"] == "the file holds another model's weights."
    assert {"weights equal", "outputs, random"} <= failed.keys()


def test_another_recipe(verify: Verify) -> None:
    failed = failures(verify(manifest={"recipe_digest": "0" * 64}))
    assert failed == {"recipe digest": "the file was made by another recipe."}


def test_changed_after_export(verify: Verify, shipped: Shipped, proto: onnx.ModelProto) -> None:
    sha256 = hashlib.sha256(shipped.path.read_bytes()).hexdigest()
    proto.doc_string = "hello"
    failed = failures(verify(proto, manifest={"sha256": sha256}))
    assert list(failed) == ["file digest"]
    assert "changed after export" in failed["file digest"]


def test_a_renamed_input(verify: Verify, proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = "image"
    for each in proto.graph.node:
        each.input[:] = ["image" if name == "input" else name for name in each.input]
    failed = failures(verify(proto))
    assert failed.keys() == {"inputs", "graph digest"}
    assert "an input was renamed or reshaped: expected input batch×3×16×16" in failed["inputs"]


def test_a_renamed_output(verify: Verify, proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = node(proto, "Gemm").output[0] = "scores"
    failed = failures(verify(proto))
    assert failed.keys() == {"outputs", "graph digest"}
    assert "an output was renamed: expected logits, found scores" in failed["outputs"]


def test_a_changed_stride(verify: Verify, proto: onnx.ModelProto) -> None:
    first = node(proto, "Conv")
    next(a for a in first.attribute if a.name == "strides").ints[:] = [2, 2]
    failed = failures(verify(proto))
    assert list(failed) == ["readable"], "a graph that contradicts itself is tried no further"
    assert "Conv_0" in failed["readable"]
    del proto.graph.value_info[:]
    failed = failures(verify(proto))
    assert failed.keys() >= {"graph digest", "MACs", "MACs in metadata", "outputs, random"}
    assert "0 has 13,824 MACs in the file, 55,296 in torch (0)" in failed["MACs"]
    assert "edited after export" in failed["graph digest"]


def test_changed_padding(verify: Verify, proto: onnx.ModelProto) -> None:
    first = node(proto, "Conv")
    next(a for a in first.attribute if a.name == "pads").ints[:] = [2, 2, 0, 0]
    failed = failures(verify(proto))
    assert failed.keys() >= {"graph digest", "outputs, random"}
    assert "MACs" not in failed


def test_a_swapped_activation(verify: Verify, proto: onnx.ModelProto) -> None:
    node(proto, "Relu").op_type = "LeakyRelu"
    failed = failures(verify(proto))
    assert failed.keys() >= {"graph digest", "outputs, random"}
    assert "operators, attributes, wiring or constants" in failed["graph digest"]


def test_a_changed_constant(verify: Verify, proto: onnx.ModelProto) -> None:
    edit(proto, node(proto, "Clip").input[2], lambda values: np.copyto(values, 600))
    assert "graph digest" in failures(verify(proto))


def test_an_operator_that_cannot_be_counted_does_not_stop_the_rest(
    verify: Verify, proto: onnx.ModelProto
) -> None:
    relu = node(proto, "Relu")
    relu.domain, relu.op_type = "com.example", "Relu"
    proto.opset_import.add(domain="com.example", version=1)
    failed = failures(verify(proto))
    assert "operator com.example.Relu" in failed["MACs"]
    assert "onnxruntime cannot load" in failed["outputs, random"]


def test_budgets_name_what_was_exceeded(verify: Verify) -> None:
    budget = Budget(macs_ratio=0.5, bytes=100, accuracy=99.9, latency_ratio=1.0)
    failed = failures(
        verify(
            spec=VerifySpec(budget=budget),
            dense_macs=TINY_COST.macs,
            latency=Latency(3.0, 2.0, 1.5),
        )
    )
    assert list(failed) == [
        "budget: MACs / dense",
        "budget: bytes",
        "budget: accuracy",
        "budget: latency / dense",
    ]
    assert "100.0 % of the dense network's 68,160" in failed["budget: MACs / dense"]
    assert "3 ms, the dense network 2 ms. 1 of" not in failed["budget: bytes"]
    assert "set round_to = 16" in failed["budget: latency / dense"]


def test_what_cannot_be_measured_is_said(verify: Verify) -> None:
    report = verify(data=None, spec=VerifySpec(budget=Budget(macs_ratio=0.5, accuracy=1.0)))
    assert report.passed
    told = " ".join(report.not_checked)
    assert all(word in told for word in ("agreement", "MACs", "accuracy budget", "latency"))


def test_disagreement_is_counted_per_sample(verify: Verify, proto: onnx.ModelProto) -> None:
    edit(proto, "9.bias", lambda values: np.copyto(values, [9, 0, 0, 0]))
    failed = failures(verify(proto))
    assert "of 14 test samples get another top-1 answer" in failed["top-1 agreement"]


def test_the_table_fits_80_columns(verify: Verify, proto: onnx.ModelProto) -> None:
    def change(values: np.ndarray) -> None:
        values[0] += 1

    edit(proto, "9.bias", change)
    out = io.StringIO()
    render(verify(proto), Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "✗" in text
    assert "✓" in text
    assert "weights equal: 9.bias differs in 1 of 4 elements" in " ".join(text.split())
    assert "checks failed: do not ship" in text


def test_the_module_is_left_as_it_was(verify: Verify, shipped: Shipped) -> None:
    before = {name: tensor.clone() for name, tensor in shipped.module.state_dict().items()}
    verify()
    after = shipped.module.state_dict()
    assert not shipped.module.training
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_catch_rate(verify: Verify, shipped: Shipped, proto: onnx.ModelProto) -> None:
    """Random damage of one weight, by one bit or a new value: all of it is caught and placed."""
    generator = np.random.default_rng(0)
    weights = sorted(roles(shipped.module).keys() & {t.name for t in proto.graph.initializer})
    caught = 0
    for trial in range(60):
        damaged = onnx.ModelProto()
        damaged.CopyFrom(proto)
        name = str(generator.choice(weights))

        def change(values: np.ndarray, trial: int = trial) -> None:
            bits = values.reshape(-1).view(np.uint32)
            at = generator.integers(bits.size)
            if trial % 2:
                bits[at] ^= np.uint32(1) << np.uint32(generator.integers(32))
            else:
                values.reshape(-1)[at] = generator.normal()

        edit(damaged, name, change)
        failed = failures(verify(damaged, data=None, spec=VerifySpec(random_batches=1)))
        caught += name in failed.get("weights equal", "")
    assert caught == 60


def test_the_healthy_cost_is_what_the_file_counts(shipped: Shipped) -> None:
    """The hand-made cost that all tests here compare with is no echo of the counter."""
    assert replace(count_onnx(shipped.path), layers=()) == replace(TINY_COST, layers=())
