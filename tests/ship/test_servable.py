"""Requests that no form serves are refused before anything runs: all forms by all options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from senders import run
from ship_nets import tiny
from torch import nn

from prunec.catalogue import exporter, exporter_names
from prunec.deploy.exporter import Exporter, Lossy
from prunec.deploy.servable import require_servable
from prunec.errors import NeedsNotMet, PassError
from prunec.exporters.to_onnx import NEWEST, OLDEST, ToOnnx

FACTS = frozenset({"compact", "folded"})
EXAMPLE = torch.randn(2, 3, 16, 16)
CODE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))

def brain():
    return net().bfloat16()

def wide():
    return net().double()
"""
RECIPE = """
name = "asked"
[model]
name = "a_network_asked_for:net"
input = ["1x6x6"]
[data]
name = "none"
[[pass]]
name = "remove-channels"
[verify.budget]
latency_ratio = false
"""


def installed(name: str) -> type[Exporter]:
    try:
        return exporter(name)
    except PassError as error:
        pytest.skip(error.message)


def chain(name: str, opset: int = 18) -> Sequence[Exporter]:
    """Return the exporter of a form, after those that it reads."""
    writers: list[Exporter] = [installed(name)()]
    while writers[0].reads:
        read = exporter(f"to-{writers[0].reads}")
        writers.insert(0, ToOnnx(opset=opset) if read is ToOnnx else read())
    return writers


def refusal(writers: Sequence[Exporter], **asked: object) -> str:
    """Return the refusal with its remedy; empty if all is served."""
    request = {"facts": FACTS, "images": True, **asked}
    try:
        require_servable(writers, **request)  # type: ignore[arg-type]
    except NeedsNotMet as error:
        return f"{error.message}. {error.remedy}"
    return ""


@pytest.mark.filterwarnings("ignore")  # of packages, as they are imported
@pytest.mark.parametrize("name", exporter_names())
def test_every_form_names_what_it_does_not_take(name: str) -> None:
    writers = chain(name)
    last = writers[-1]
    assert not refusal(writers, network=(tiny(0), (EXAMPLE,)))
    for kind, told in ((torch.bfloat16, "each of its numbers"), (torch.float64, "model.float()")):
        module, example = tiny(0).to(kind), EXAMPLE.to(kind)
        told_of = refusal(writers, network=(module, (example,)))
        assert told in told_of
        assert "0.weight is" in told_of
        # Of float64, onnxruntime has all but convolutions.
        taken = all(kind in writer.kinds for writer in writers)
        assert taken == ("input 0 is" not in refusal(writers, network=(nn.ReLU(), (example,))))
    assert not refusal([ToOnnx()], network=(nn.Linear(3, 2).double(), (torch.ones(2, 3).double(),)))
    half = refusal([last], network=(tiny(0).half(), (EXAMPLE.half(),)))
    assert bool(half) == (torch.float16 not in last.kinds)
    assert bool(refusal(writers, layout="nhwc")) == any(not w.takes_bytes for w in writers)
    lossy = any(isinstance(writer, Lossy) for writer in writers)
    assert ("--data" in refusal(writers, images=False)) == lossy
    assert bool(refusal(writers, facts=frozenset())) == any(w.needs for w in writers)
    for opset in range(OLDEST, NEWEST + 1):
        newest_need = max(writer.oldest_opset for writer in writers)
        told_of = refusal(chain(name, opset))
        assert ("--opset" in told_of) == (opset < newest_need)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a network and a recipe, in which no file can be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("a_network_asked_for.py").write_text(CODE)
    Path("asked.toml").write_text(RECIPE)

    def written(*_: object) -> None:
        raise AssertionError("refused too late")

    monkeypatch.setattr(ToOnnx, "write", written)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--c", "--opset", 9), "to-c needs ONNX of opset 13 or later"),
        (("--packed", "--opset", 10), "to-packed needs ONNX of opset 11 or later"),
        (("--fp16",), "batches to calibrate on"),
        (("--with-preprocessing", "nhwc"), "needs images, and the recipe names none"),
        (("--c", "--with-preprocessing", "nchw"), "not the bytes of --with-preprocessing"),
        (("--runner", "native"), "--runner native opens .c files"),
    ],
)
def test_a_command_is_refused_before_the_first_file(
    here: Path, options: Sequence[object], told: str
) -> None:
    answer = run("export", "asked.toml", *options)
    assert answer.exit_code == 1, answer.output
    assert told in " ".join(answer.output.split()), answer.output
    assert "remedy" in answer.output
    assert not list(here.glob("runs/*"))


@pytest.mark.parametrize("name", ["brain", "wide"])
@pytest.mark.parametrize("form", ["onnx", "packed"])
def test_types_that_no_runtime_computes_with_are_refused_with_a_remedy(
    here: Path, name: str, form: str
) -> None:
    kind = {"brain": "bfloat16", "wide": "float64"}[name]
    network = f"a_network_asked_for:{name}"
    answer = run("compile", network, "--input", f"1x6x6:{kind}", f"--{form}")
    assert answer.exit_code == 1, answer.output
    assert f"is {kind}" in answer.output
    assert "Call model.float()" in answer.output
    assert not list(here.glob("runs/*"))
