"""Layers of native code beside the dense ones: matched, under a roof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from run_folders import exported_run

from prunec.deploy.native.peaks import Peaks
from prunec.deploy.native.speeds import layer_roofline
from prunec.deploy.runner import LayerTime, LayerWork
from prunec.pipeline.layer_report import layer_report, record_layers
from prunec.pipeline.measuring import Bench

PEAKS = Peaks(gmacs=20.0, gbytes=4.0)
WORK = LayerWork(density=0.1, products=1_000_000, bytes=500_000, dense_bytes=2_000_000)
OURS = [
    LayerTime("input", "of each", 0.01),
    LayerTime("relu", "sparse", 0.1, WORK),
    LayerTime("relu_1", "sparse", 0.2, WORK),  # with a residual: the dense one has another name
    LayerTime("logits", "sparse linear", 0.1, WORK),
]
THEIRS = [
    LayerTime("relu_nchwc", "Conv", 1.25),
    LayerTime("conv2d_1_nchwc", "Conv", 2.5),
    LayerTime("Add_3", "Add", 0.1),
    LayerTime("Gemm_4", "Gemm", 3.75),
]


def shown(theirs: list[LayerTime]) -> str:
    console = Console(width=120)
    with console.capture() as captured:
        for part in layer_report(OURS, theirs, PEAKS):
            console.print(part)
    return captured.get()


def test_layers_are_matched_by_name_and_then_by_order() -> None:
    text = shown(THEIRS)
    rows = {name: next(line for line in text.splitlines() if name in line) for name in
            ("relu ", "relu_1", "logits")}  # fmt: skip
    assert "1.2500" in rows["relu "]
    assert "2.5000" in rows["relu_1"]
    assert "3.7500" in rows["logits"]
    assert "10.00" in rows["relu "]  # 1e6 products in 0.1 ms
    assert "50 %" in rows["relu "]  # of the peak
    assert "125 %" in rows["relu "]  # of 4 GB/s at two multiply-adds of a byte


def test_layers_that_cannot_be_told_apart_have_no_dense_time() -> None:
    text = shown([*THEIRS, LayerTime("conv2d_2", "Conv", 9.0)])
    assert "—" in next(line for line in text.splitlines() if "relu_1" in line)


def test_every_matched_layer_is_drawn_twice() -> None:
    drawn = "".join(layer_roofline(OURS, THEIRS, PEAKS))
    assert drawn.count('class="spot shipped"') == drawn.count('class="spot dense"') == 3
    assert "20 GMAC/s in registers, 4 GB/s from memory" in drawn


def test_times_that_were_measured_stand_on_the_page(tmp_path: Path) -> None:
    """The record is read back as it was written; without native code there is none."""
    run = exported_run(tmp_path)
    bench = Bench("C beside onnxruntime", (), (None, None), None, (OURS, THEIRS), None)
    assert not record_layers(run, bench)
    assert not run.export.layers.exists()
    page = record_layers(run, replace(bench, peaks=PEAKS))
    text = Path(page).read_text()
    assert text.count('class="spot shipped"') == 3
    assert "cannot be read" not in text
    assert "damaged" not in text
