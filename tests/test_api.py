"""The public functions: what they promise, what they refuse, and that importing them is light."""

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
from masks import channel_masks, masked, structured_output_masks, unstructured_masks
from oracles import brute_macs, fresh_inputs, worst
from sampling import sampled
from torch import Tensor, nn
from zoo import ZOO
from zoo.parts import block, head

import prunec
from prunec.errors import PrunecError, RunError
from prunec.graph.capture import reader
from prunec.graph.capture.fast import fast_trace
from prunec.inspection.groups import added_up
from prunec.models.gates import attach_gates

README = Path(__file__).parent.parent / "README.md"
SHARED = ["two-inputs", "two-heads", "dict-output", "grouped"]


def small(width: int = 8) -> nn.Module:
    return nn.Sequential(block(3, width), block(width, 12), head(12, 4)).eval()


EXAMPLE = torch.zeros(2, 3, 8, 8)


def zeroed(name: str, seed: int = 1) -> tuple[nn.Module, tuple[Tensor, ...]]:
    module, example = ZOO[name]()
    masks = channel_masks(module, prunec.groups(module, example), 0.5, "both", seed)
    return masked(module, masks), example


# -- the package ----------------------------------------------------------------------------------


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


def test_the_readme_example_runs_word_for_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.read_text("utf-8").partition("\n## From Python\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
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
    expected, found = module(image, extra), compact(image, extra=extra)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found["all"], expected["all"])


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


# -- the report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "round_to"), [("residual", 1), ("grouped", 4), ("layer-norm-channels-last", 1)]
)
def test_the_report_adds_up(name: str, round_to: int) -> None:
    module, example = zeroed(name)
    compiled = prunec.compile(module, example, round_to=round_to)
    report = compiled.report
    for group in report.groups:
        assert group.kept + group.removed == group.size
        assert sum(group.because.values()) == group.kept
        assert not group.pinned or group.because == {f"pinned: {group.pinned}": group.size}
    assert sum(report.because.values()) == report.channels[1]
    assert report.before.macs == brute_macs(module, example)
    assert report.after.macs == brute_macs(compiled.module, example)
    assert report.after.params == sum(p.numel() for p in compiled.module.parameters())
    assert report.before.nonzero_params == sum(int(p.count_nonzero()) for p in module.parameters())
    told = json.loads(report.to_json())
    assert told["macs"] == {"before": report.before.macs, "after": report.after.macs}
    assert [g["name"] for g in told["groups"]] == [g.name for g in prunec.groups(module, example)]
    text = str(report)
    assert f"{report.after.macs:,}" in text
    assert all(group.name in text for group in report.groups)


def test_reasons_are_added_up_wherever_they_hold() -> None:
    reasons = [
        ("pinned: sort at sort_1 is not understood", 2),
        ("pinned: sort at sort_2 is not understood", 3),
        ("carries the constants that a.0.weight reads", 1),
        ("carries the constants that b.weight reads", 1),
        ("live", 9),
    ]
    assert added_up(reasons) == {
        "live": 9,
        "pinned: sort is not understood": 5,
        "carries the constants that a kernel reads": 2,
    }


def test_the_report_says_why_the_dead_stayed() -> None:
    """Seven of eight filters dead behind ReLU: one carries their constants, three round up."""
    module = nn.Sequential(block(3, 8), block(8, 12), head(12, 4)).eval()
    with torch.no_grad():
        module[0][0].weight[:7] = 0
        module[0][1].bias.fill_(0.5)
    tight, rounded = (prunec.compile(module, EXAMPLE, round_to=n).report for n in (1, 4))
    [carries] = [why for why in tight.groups[0].because if why != "live"]
    assert carries == "carries the constants that 1.0.weight reads"
    assert tight.groups[0].because == {"live": 1, carries: 1}
    assert sum(rounded.groups[0].because.values()) == rounded.groups[0].kept == 4
    assert rounded.groups[0].because["rounded up to a multiple of 4"] == 2
    assert "rounded up to a multiple of 4" in str(rounded)


def test_the_report_names_layers_that_vanished() -> None:
    module, example = ZOO["in-place"]()  # x + body(x)
    with torch.no_grad():
        for parameter in module.body.parameters():
            parameter.zero_()
    compiled = prunec.compile(module, example, round_to=4)
    assert compiled.report.gone == ("body.0",)
    assert not any(name.startswith("body") for name in compiled.module.state_dict())
    assert "Layers gone: body.0" in str(compiled.report)
    assert worst(module, compiled.module, fresh_inputs(example, 3, 1)) < 1e-10


def test_nothing_is_kept_of_a_group_whose_layers_vanished() -> None:
    class Branched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
            self.branch = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(x + self.branch(x))

    module = Branched().eval()
    with torch.no_grad():
        for parameter in module.branch[2].parameters():
            parameter.zero_()
    compiled = prunec.compile(module, torch.zeros(1, 4), round_to=4)
    assert set(compiled.report.gone) == {"branch.0", "branch.2"}
    kept = {group.name: group.kept for group in compiled.report.groups}
    assert kept == {"stem": 6, "branch.0": 0, "head": 2}
    assert worst(module, compiled.module, (torch.randn(3, 4),)) < 1e-6


# -- the plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sampled(SHARED, 4))
def test_a_saved_plan_rebuilds_the_network_without_an_example(name: str, tmp_path: Path) -> None:
    module, example = zeroed(name)
    compiled = prunec.compile(module, example)
    compiled.plan.save(tmp_path / "new" / "plan.json")
    plan = prunec.Plan.load(str(tmp_path / "new" / "plan.json"))
    assert plan == compiled.plan
    rebuilt = plan.apply(ZOO[name]()[0])
    rebuilt.load_state_dict(compiled.module.state_dict())
    assert worst(module, rebuilt, fresh_inputs(example, 3, 2)) < 1e-10


def test_integer_inputs_are_remembered() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.embed(x).mean(1))

    compiled = prunec.compile(Words(), torch.randint(0, 20, (1, 5)))
    rebuilt = prunec.Plan.from_json(compiled.plan.to_json()).apply(Words())
    rebuilt.load_state_dict(compiled.module.state_dict())
    inputs = (torch.randint(0, 20, (4, 5)),)
    assert worst(compiled.module, rebuilt, inputs) == 0


def plan() -> prunec.Plan:
    module = small()
    with torch.no_grad():
        module[1][0].weight[:, 2:5] = 0
    return prunec.compile(module, EXAMPLE).plan


@pytest.mark.parametrize(
    ("fresh", "message"),
    [
        (lambda: small(9), "0.0.weight of shape (8, 3, 3, 3), which here has shape (9, 3, 3, 3)"),
        (lambda: nn.Sequential(block(3, 8), block(8, 12)), "2.2.weight, which this network does"),
        (lambda: nn.Sequential(*small(), nn.Linear(4, 2)), "does not know 3.weight"),
        (lambda: "small", "not a str"),
    ],
)
def test_a_plan_refuses_another_network(fresh: Any, message: str) -> None:
    with pytest.raises(PrunecError) as caught:
        plan().apply(fresh())
    assert message in str(caught.value)


def test_a_plan_refuses_a_network_that_ties_its_channels() -> None:
    class Straight(nn.Module):
        tied = False

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            g = self.b(h)
            return self.c(g + h if self.tied else g)

    class Tied(Straight):
        tied = True

    module = Straight()
    with torch.no_grad():
        module.c.weight[:, 2] = 0
    made = prunec.compile(module, torch.zeros(2, 6)).plan
    assert made.removed
    with pytest.raises(PrunecError, match="ties together"):
        made.apply(Tied())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "Not a channel plan"),
        ("[]", "Not a channel plan"),
        ('{"format": 1}', "has format 1, this prunec reads"),
        ('{"format": 3}', "Not a channel plan"),
        (b"\xff\xfe\x00", "it is not text"),
    ],
)
def test_a_file_that_is_no_plan_is_named(
    text: str | bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PrunecError) as caught:
        prunec.Plan.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert caught.value.remedy


# -- what is refused ------------------------------------------------------------------------------

WEIGHT = "0.0.weight"
MASK = torch.ones(8, 3, 3, 3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("model", "example", "options", "message"),
    [
        ("net", EXAMPLE, {}, "the model is of type str, not a torch.nn.Module"),
        (nn.ReLU, EXAMPLE, {}, "the model is the class ReLU"),
        (small(), [], {}, "holds no tensor"),
        (small(), {"x": EXAMPLE}, {}, "is of type dict, not a tensor"),
        (small(), (EXAMPLE, 3), {}, "example_inputs[1] is of type int"),
        (small(), torch.zeros(()), {}, "without a batch axis"),
        (small(), EXAMPLE[:0], {}, "it holds no sample"),
        (small(), EXAMPLE.to("meta"), {}, "lies on meta, the network on cpu"),
        (small(), EXAMPLE, {"masks": [MASK]}, "masks is of type list"),
        (small(), EXAMPLE, {"masks": {"0.0.weigth": MASK}}, "Did you mean '0.0.weight'?"),
        (small(), EXAMPLE, {"masks": {WEIGHT: MASK.float()}}, "is torch.float32, not a bool"),
        (small(), EXAMPLE, {"masks": {WEIGHT: [True]}}, "is list, not a bool tensor"),
        (small(), EXAMPLE, {"masks": {WEIGHT: MASK[:3]}}, "(3, 3, 3, 3), the parameter (8, 3,"),
        (small(), EXAMPLE, {"round_to": 0}, "round_to = 0 is not"),
        (small(), EXAMPLE, {"round_to": 1.5}, "round_to = 1.5 is not"),
        (small(), EXAMPLE, {"round_to": True}, "round_to = True is not"),
    ],
)
def test_wrong_arguments_are_named_with_a_remedy(
    model: Any, example: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PrunecError) as caught:
        prunec.compile(model, example, **options)
    assert message in str(caught.value)
    assert caught.value.remedy


# -- groups, counts, files ------------------------------------------------------------------------


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


def test_a_run_is_verified_by_a_function_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(prunec.PrunecError, match="verify_run"):
        prunec.verify(tmp_path, tmp_path / "net.onnx", example_inputs=EXAMPLE)  # type: ignore[arg-type]
    with pytest.raises(prunec.PrunecError, match="not a run folder"):
        prunec.verify_run(tmp_path)


def test_a_file_that_is_not_there_fails_a_check(tmp_path: Path) -> None:
    report = prunec.verify(small(), tmp_path / "net.onnx", example_inputs=EXAMPLE)
    assert [check.name for check in report.failures] == ["readable"]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        prunec.export_onnx(small(), EXAMPLE, tmp_path / "file" / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


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


def test_a_report_is_printed_of_a_network_that_was_given_another_type() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    compiled = prunec.compile(model, torch.randn(2, 3, 6, 6))
    compiled.module.double()
    assert str(compiled.report)
    assert compiled.report.after.macs == compiled.report.before.macs


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
