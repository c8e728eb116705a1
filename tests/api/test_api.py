"""The public functions: what they promise, and that importing them is light."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from api_nets import SHARED, zeroed
from masks import masked, structured_output_masks, unstructured_masks
from oracles import fresh_inputs, worst
from sampling import sampled
from torch import Tensor, nn
from zoo import ZOO

import prunec
from prunec.graph.capture import reader
from prunec.graph.capture.fast import fast_trace
from prunec.models.gates import attach_gates

FROM_PYTHON = Path(__file__).parent.parent.parent / "docs" / "from_python.md"


@pytest.mark.slow
def test_importing_prunec_is_light_and_its_names_are_there() -> None:
    code = (
        "import sys, prunec\n"
        "assert {'compile', 'verify', 'groups'} <= set(dir(prunec))\n"
        "assert not {'torch', 'numpy', 'onnx', 'pydantic'} & set(sys.modules)\n"
        "assert prunec.compile and prunec.count and prunec.groups\n"
        "assert not {'onnx', 'onnxruntime', 'onnxscript'} & set(sys.modules)\n"
        "from prunec.deploy.checks import Report\n"
        "assert prunec.Report is Report and prunec.verify.__name__ == 'verify'\n"
        "assert callable(prunec.verify)\n"
        "for name in prunec.__all__: assert getattr(prunec, name).__doc__, name\n"
        "try: prunec.compyle\n"
        "except AttributeError as error: assert 'compyle' in str(error)\n"
        "else: raise SystemExit('no error')\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_public_names_are_those_of_the_api() -> None:
    assert prunec.__all__ == sorted(prunec._HOMES)  # type: ignore[attr-defined]
    for name in prunec.__all__:
        assert getattr(prunec, name).__name__ == name


@pytest.mark.slow
def test_the_example_of_the_docs_runs_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", FROM_PYTHON.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, FROM_PYTHON.name, "exec"), {"__name__": "docs"})
    assert (tmp_path / "model.onnx").is_file()


# -- compile --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampled(SHARED, 4))
def test_compile_keeps_the_function_for_every_batch_size(name: str) -> None:
    module, example = zeroed(name)
    compiled = prunec.compile(module, example)
    assert compiled.report.channels[1] < compiled.report.channels[0]
    for batch in (1, 3):
        assert worst(module, compiled.module, fresh_inputs(example, batch, batch)) < 1e-10


@pytest.mark.parametrize("name", ["residual", "two-inputs"])
def test_one_sample_or_a_list_is_example_enough(name: str) -> None:
    module, example = zeroed(name)
    ones = [x[:1] for x in example]
    a, b = prunec.compile(module, example), prunec.compile(module, ones)
    assert a.plan == b.plan
    assert worst(module, b.module, fresh_inputs(example, 3, 1)) < 1e-10
    if len(ones) == 1:
        assert prunec.compile(module, ones[0]).plan == a.plan


def test_the_compact_network_is_called_by_the_names_of_the_first() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(4, 6), nn.Linear(5, 6)

        def forward(self, image: Tensor, extra: Tensor, scale: float = 2.0) -> dict[str, Any]:
            h = torch.relu(self.left(image) + self.right(extra))
            return {"sum": h.sum(1), "all": (h, h * scale)}

    module = Named().eval()
    compact = prunec.compile(module, (torch.zeros(1, 4), torch.zeros(1, 5))).module
    image, extra = torch.randn(3, 4), torch.randn(3, 5)
    expected, actual = module(image, extra), compact(image, extra=extra)
    assert actual.keys() == expected.keys()
    torch.testing.assert_close(actual["all"], expected["all"])


def test_masks_count_as_zeros() -> None:
    module, example = ZOO["residual"]()
    masks = unstructured_masks(module, 0.1, 3) | structured_output_masks(module, 0.6, 4)
    before = copy.deepcopy(module.state_dict())
    by_mask = prunec.compile(module, example, masks=masks)
    by_zero = prunec.compile(masked(module, masks), example)
    assert by_mask.plan == by_zero.plan
    assert by_mask.report.to_dict() == by_zero.report.to_dict()
    assert worst(masked(module, masks), by_mask.module, fresh_inputs(example, 3, 1)) < 1e-10
    left = dict(by_mask.module.named_parameters())
    assert all(mask.shape == left[name].shape for name, mask in by_mask.masks.items())
    assert all(bool((left[name][~mask] == 0).all()) for name, mask in by_mask.masks.items())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("alias", ["first.weight", "second.weight"])
def test_a_mask_of_a_shared_parameter_counts_under_each_of_its_names(alias: str) -> None:
    module, example = ZOO["two-layers-one-weight"]()
    mask = torch.ones_like(module.get_parameter(alias), dtype=torch.bool)
    mask[:, 3] = mask[3] = False
    compiled = prunec.compile(module, example, masks={alias: mask})
    assert worst(masked(module, {"first.weight": mask}), compiled.module, example) < 1e-10
    assert compiled.report.channels[1] < compiled.report.channels[0]


def test_gates_are_absorbed_first() -> None:
    module, example = ZOO["chain"]()
    gated = copy.deepcopy(module)
    name = next(n for n, p in module.named_parameters() if p.dim() == 4 and p.shape[1] > 3)
    shape = module.get_parameter(name).shape
    gate = (torch.rand(1, shape[1], 1, 1, dtype=torch.float64) > 0.5).double()
    attach_gates(gated, {name: gate})
    compiled = prunec.compile(gated, example)
    assert worst(gated, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10
    assert sum(compiled.report.to_dict()["channels"].values()) > 0
    assert compiled.report.channels[0] - compiled.report.channels[1] >= int((gate == 0).sum())
    assert prunec.count(gated, example).nonzero_macs < prunec.count(module, example).nonzero_macs


@pytest.mark.parametrize("name", sampled(SHARED, 4))
def test_groups_are_plain_data(name: str) -> None:
    module, example = ZOO[name]()
    for group in prunec.groups(module, example):
        told = json.loads(json.dumps(group.to_dict()))
        assert (told["name"], told["size"], told["pinned"]) == (
            group.name, group.size, group.pinned,
        )  # fmt: skip
        assert tuple(told["members"]) == group.members
        assert all(len(cut["indices"]) == group.size for cut in told["slices"])


@pytest.mark.parametrize("name", sampled(["two-inputs", "two-heads", "dict-output"], 3))
def test_a_file_is_counted_and_verified(name: str, tmp_path: Path) -> None:
    module, example = zeroed(name)
    module, example = module.float(), tuple(x.float()[:1] for x in example)
    compact = prunec.compile(module, example).module.train()
    path = prunec.export_onnx(compact, example, tmp_path / "new" / "net.onnx")
    assert compact.training
    ours, theirs = prunec.count(compact, example), prunec.count_onnx(path)
    assert (ours.macs, ours.nonzero_macs, ours.params, ours.nonzero_params) == (
        theirs.macs, theirs.nonzero_macs, theirs.params, theirs.nonzero_params,
    )  # fmt: skip
    report = prunec.verify(compact, path, example_inputs=example)
    assert report.passed, report.failures
    assert {"MACs", "parameters", "outputs, random"} <= {check.name for check in report.checks}
    with torch.no_grad():
        next(p for p in compact.parameters() if p.dim() > 1).add_(0.1)
    other = prunec.verify(compact, path, example_inputs=example)
    assert {"weights equal", "outputs, random"} <= {check.name for check in other.failures}


def test_a_compile_captures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cost before is counted on the capture that is compiled."""
    module, example = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(2, 4)
    mask = {"0.weight": torch.rand(6, 4) < 0.5}
    captures = []
    monkeypatch.setattr(
        reader, "fast_trace", lambda *given: captures.append(given) or fast_trace(*given)
    )
    report = prunec.compile(module, example, masks=mask).report
    before = report.before
    assert len(captures) == 1
    with torch.no_grad():
        module[0].weight.mul_(mask["0.weight"])
    assert before == prunec.count(module, example)


def test_a_number_beside_the_batch_is_an_input(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.part(x) * scale

    model, example = Scaled().eval(), (torch.randn(2, 3, 6, 6), torch.tensor(0.5))
    file = prunec.export_onnx(model, example, tmp_path / "model.onnx")
    assert prunec.verify(model, file, example_inputs=example).passed
