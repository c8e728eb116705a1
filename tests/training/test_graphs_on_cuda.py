"""CUDA's rules for graphs on a GPU, which no stand-in shows: streams, threads, memory, waits."""

from __future__ import annotations

import copy
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from every_method import SHIPPED, artifact
from small_training import small_context, small_data, small_net
from torch import Tensor, nn

from prunec.artifact import Artifact
from prunec.batches.transforms import build_normalisation, build_transform
from prunec.sparsity.fused import Fused, fused
from prunec.sparsity.two_lines import larger_of, slopes_of
from prunec.tasks.task import Classification
from prunec.training.averaging import Average
from prunec.training.capture import WARM, Capturing
from prunec.training.loop import fit
from prunec.training.method import Method, Moment
from prunec.training.objective import Objective
from prunec.training.optimisation import make_optimizer
from prunec.training.recording import CudaGraphs
from prunec.training.settings import Settings, computing
from prunec.training.step import Stepper

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),  # inductor's
    pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning"),  # once, if asked
]
CUDA = torch.device("cuda")


class Turns(Method):
    """Steps of so many kinds, in turns of five."""

    def __init__(self, kinds: int) -> None:
        self.kinds = kinds

    def kind(self, moment: Moment) -> Any:
        return moment.number // 5 % self.kinds


class Looks(Method):
    """Reads a value of the device, which breaks a recording off."""

    def kind(self, moment: Moment) -> Any:
        return ()

    def after_step(self, moment: Moment) -> None:
        assert self.optimizer is not None
        float(self.optimizer.param_groups[0]["params"][0].sum())


def steps(
    method: Method, net: nn.Module | None = None, device: torch.device = CUDA
) -> tuple[Capturing, list[str], Any]:
    """Return recorded steps on a device, what they tell, and a batch."""
    net = (net or small_net()).to(device).train()
    optimizer = make_optimizer(net, small_context(Path()).recipe.train)
    settings = Settings("fp32", False, 1)
    take = Stepper(net, net, optimizer, method, Objective(Classification(3)), settings)
    average, told = Average(net, 0.9), []
    method.begin(optimizer, average.values)
    learn = Capturing(take, average, CudaGraphs(device), told.append)
    images, labels = next(iter(small_context(Path()).data.train_batches(0, 16)))
    return learn, told, (images.to(device), labels.to(device))


def test_threads_that_pin_batches_go_on_while_a_step_is_recorded() -> None:
    """A loader's thread asks for pinned memory at any time; by default CUDA would end it."""
    learn, told, batch = steps(Turns(4))
    over, errors, pinned = threading.Event(), [], []

    def pin() -> None:
        size = 1
        while not over.is_set():
            size = size % 50 + 1
            try:
                pinned.append(torch.empty(size, 1024, 7).pin_memory().numel())
            except RuntimeError as error:
                errors.append(str(error))
                return

    thread = threading.Thread(target=pin)
    thread.start()
    for number in range(60):
        learn(*batch, Moment(0, number, 1000, 1, 0.05))
    over.set()
    thread.join()
    assert not told
    assert not errors
    assert len(learn.recordings) == 4
    assert len(pinned) > 4


def test_recordings_share_their_memory() -> None:
    """Four kinds of steps hold less than twice what one holds."""
    held = []
    for kinds in (1, 4):
        torch.cuda.empty_cache()
        net = nn.Sequential(
            nn.Conv2d(1, 256, 3), nn.ReLU(), nn.Conv2d(256, 256, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 3),
        )  # fmt: skip
        before = torch.cuda.memory_reserved()
        learn, told, batch = steps(Turns(kinds), net)
        big = (batch[0].repeat(8, 1, 4, 4), batch[1].repeat(8))
        for number in range(60):
            learn(*big, Moment(0, number, 1000, 1, 0.05))
        assert not told
        assert len(learn.recordings) == kinds
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved() - before)
        del learn
    assert held[1] < 2 * held[0]


def test_kinds_in_turns_learn_what_computed_steps_do() -> None:
    """A replay may overwrite what another recording computed, and nothing that lasts."""
    ends = []
    for recorded in (True, False):
        learn, told, batch = steps(Turns(3))
        if not recorded:
            learn.reason = "not now"
        for number in range(90):
            torch.cuda.manual_seed(number)
            learn(*batch, Moment(0, number, 1000, 1, 0.02))
        assert not told
        assert learn.replays == (90 - 3 * WARM if recorded else 0)
        ends.append({k: v.clone() for k, v in learn.take.model.state_dict().items()})
    for key, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][key], rtol=0.02, atol=0.02, msg=key)


def test_a_recording_that_breaks_off_ends_no_training() -> None:
    learn, told, batch = steps(Looks())
    before = torch.cuda.current_stream()
    losses = [float(learn(*batch, Moment(0, n, 1000, 1, 0.05))[0]) for n in range(20)]
    assert len(told) == 1
    assert learn.replays == 0
    assert torch.cuda.current_stream() == before
    assert losses[-1] < losses[0]
    learn, told, batch = steps(Turns(1))  # and none after it
    for number in range(WARM + 3):
        learn(*batch, Moment(0, number, 1000, 1, 0.05))
    assert not told
    assert learn.replays == 3


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_each_device_has_its_own_recordings() -> None:
    for number in (1, 0):
        learn, told, batch = steps(Turns(1), device=torch.device(f"cuda:{number}"))
        for step in range(WARM + 3):
            learn(*batch, Moment(0, step, 1000, 1, 0.05))
        assert not told
        assert learn.replays == 3


@pytest.mark.parametrize("name", ["dense", *SHIPPED])
def test_steps_that_are_alike_wait_for_nothing(name: str, tmp_path: Path) -> None:
    """Every step that has a kind is asked for without a look at the device."""
    own = replace(small_context(tmp_path, epochs=8, ema=0.9, clip_norm=1.0), device=CUDA)
    take = Stepper.learn

    def learn(self: Stepper, *given: Any) -> Any:
        alike = self.method.kind(given[-1]) is not None
        torch.cuda.set_sync_debug_mode("error" if alike and given[-1].number > WARM else "default")
        try:
            return take(self, *given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stepper, "learn", learn)
        if name == "dense":
            fit(small_net(), Method(), own)
        else:
            result: Artifact = SHIPPED[name](artifact(), own)
            assert result.history


def test_batches_wait_for_no_step() -> None:
    """The host makes a batch while the device computes the step before it."""
    augment = (
        {"name": "RandomCrop", "size": 8, "padding": 2},
        {"name": "RandomHorizontalFlip"},
        {"name": "ColorJitter", "brightness": 0.4, "contrast": 0.4},
        {"name": "RandomErasing", "p": 0.7, "value": 9},
    )
    data = replace(
        small_data(),
        augment=build_transform(augment, "data.augment"),
        normalise=build_normalisation((0.5,), (0.25,), 1),
    ).to(CUDA)
    batches = data.train_batches(0, 16)
    next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        count = len(list(batches))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert count == 5


def test_a_gpu_compiles_formulas_to_what_they_are() -> None:
    """Otherwise what is computed is the plain formula, many times as slow, and nobody is told."""
    fused.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # inductor's own
        for formula, given in (
            (larger_of, _lines(torch.float32)),
            (larger_of, _lines(torch.bfloat16)),
            (slopes_of, (torch.randn(4, 6, 5, 5, device=CUDA), *_lines(torch.float32))),
        ):
            compiled = fused(formula)
            if not isinstance(compiled, Fused):
                pytest.skip("there is no Triton")
            actual = compiled(*given)
            assert compiled.reason == ""
            torch.testing.assert_close(actual, formula(*given), rtol=2e-2, atol=2e-2)


def _lines(dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return x [4, 6, 5, 5] and the four coefficients [4, 6, 1, 1]."""
    shapes = ((4, 6, 5, 5), *[(4, 6, 1, 1)] * 4)
    return tuple(torch.randn(shape, device=CUDA, dtype=dtype) for shape in shapes)


def test_kernels_that_cudnn_tries_are_tried_before() -> None:
    """cuDNN's search for the fastest kernel is over when a step is recorded."""
    with computing(Settings("bf16", True, 1), CUDA):
        learn, told, batch = steps(Turns(1), copy.deepcopy(small_net()))
        for number in range(WARM + 3):
            learn(*batch, Moment(0, number, 1000, 1, 0.05))
    assert not told
    assert learn.replays == 3
