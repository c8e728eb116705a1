"""check.py with the loaders of other runtimes than onnxruntime, each where it is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from ship_nets import Shipped
from torch import nn

from prunec.artifact import Artifact
from prunec.catalogue import exporter, runner_for
from prunec.deploy.exporter import Source
from prunec.errors import PassError
from prunec.pipeline.bundles import check as script
from prunec.store.records import DIGEST, record_digest

pytestmark = pytest.mark.filterwarnings("ignore")  # what those packages say of each other
FORMS = ("openvino", "litert", "executorch", "ncnn")
LAYERED = ("onnx", "openvino", "litert", "ncnn")


def bundle(folder: Path, form: str, shipped: Shipped) -> Path:
    """A folder with a form of the small network, golden values of three samples, and check.py."""
    try:
        writer = exporter(f"to-{form}")()
    except PassError as error:
        pytest.skip(error.message)
    artifact = Artifact(shipped.module, shipped.example)
    path = folder / form / f"model{writer.suffix}"
    path.parent.mkdir(parents=True)
    writer(Source(artifact, {}, {"onnx": shipped.path}), path)
    (folder / "golden").mkdir()
    inputs = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        outputs = shipped.module(inputs)
    np.save(folder / "golden/input_0.npy", inputs.numpy())
    np.save(folder / "golden/output_0.npy", outputs.numpy())
    shutil.copy(script.__file__, folder / "check.py")
    seal(folder, {form: {"file": f"{form}/{path.name}", "tolerance": 1e-4, "exact": True}})
    return folder


def seal(folder: Path, forms: dict[str, Any]) -> None:
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in folder.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    said = {"forms": forms, "files": files}
    said[DIGEST] = record_digest(said)
    text = json.dumps({"additional_metadata": {"prunec": said}})
    (folder / "manifest.json").write_text(text)


def loaded(folder: Path) -> ModuleType:
    """The script of a bundle, in this process."""
    spec = importlib.util.spec_from_file_location("a_check", folder / "check.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_loader_answers_as_the_network(
    form: str,
    shipped: Shipped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = bundle(tmp_path / "b", form, shipped)
    monkeypatch.setattr(sys, "argv", ["check.py", "--json"])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert loaded(folder).main() == 0
    told = json.loads(capsys.readouterr().out)
    (actual,) = told["forms"]
    assert actual["verdict"] == "PASS"
    assert actual["difference"] < 1e-4
    assert actual["milliseconds"]["median"] > 0
    golden = folder / "golden/output_0.npy"
    np.save(golden, np.load(golden) * np.float32(1.01))
    manifest = json.loads((folder / "manifest.json").read_text())
    seal(folder, manifest["additional_metadata"]["prunec"]["forms"])
    assert loaded(folder).main() == 2
    told = json.loads(capsys.readouterr().out)
    assert "outputs differ by" in told["forms"][0]["why"]


@pytest.mark.slow
def test_executorch_is_loaded_without_its_compiler_on_one_thread(
    shipped: Shipped, tmp_path: Path
) -> None:
    """The compiler takes most of the time and memory of a check, which it does not need."""
    folder = bundle(tmp_path / "b", "executorch", shipped)
    code = (
        "import sys, pathlib, check\n"
        "run, how = check.load_executorch(pathlib.Path('executorch/model.pte'))\n"
        "pool = sys.modules['executorch.extension.pybindings._C']\n"
        "print('executorch.exir' in sys.modules, pool._threadpool_get_thread_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("form", LAYERED)
def test_the_values_between_layers_are_the_networks(
    form: str, shipped: Shipped, tmp_path: Path
) -> None:
    """The outputs of torch's layers are among them; of two that are changed the first is named."""
    folder = bundle(tmp_path / "b", form, shipped)
    (path,) = (p for p in (folder / form).iterdir() if p.suffix != ".bin")
    between = runner_for(path.suffix).between(path)
    assert between is not None
    given = np.load(folder / "golden/input_0.npy")
    values = between.values([given[:1]])
    assert len(values) == len(between.layers)
    for entry in outputs_of_kernels(shipped.module, torch.from_numpy(given[:1])):
        assert any(same_numbers(entry, value) for value in values)
    if between.copy:
        (path.parent / f"layers{path.suffix}").write_bytes(between.copy)
    golden = folder / "golden/layers" / form
    golden.mkdir(parents=True)
    for place, value in enumerate(values):
        np.save(golden / f"value_{place}.npy", value)
    entry = {"file": f"{form}/{path.name}", "tolerance": 1e-4, "layers": list(between.layers)}
    checked = loaded(folder).parting(form, entry)
    assert (checked["verdict"], checked["form"]) == ("PASS", f"{form}, between layers"), checked
    for place in (len(values) - 1, 1):
        np.save(golden / f"value_{place}.npy", values[place] * np.float32(1.01) + np.float32(0.1))
        checked = loaded(folder).parting(form, entry)
        assert (checked["verdict"], checked["layer"]) == ("FAIL", between.layers[place]["name"])


def outputs_of_kernels(module: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    outputs: list[np.ndarray] = []
    # Of a linear layer, and of the activation that ncnn and LiteRT compute in the kernel before it.
    hooks = [
        part.register_forward_hook(lambda _m, _x, y: outputs.append(y.detach().numpy()))
        for part in module.modules()
        if isinstance(part, nn.Linear | nn.ReLU)
    ]
    with torch.no_grad():
        module(x)
    for hook in hooks:  # the module is other tests', too
        hook.remove()
    return outputs


def same_numbers(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two arrays have the same numbers, in whatever layout."""
    a, b = np.sort(one, axis=None), np.sort(other, axis=None)
    return a.size == b.size and bool(np.allclose(a, b, rtol=1e-4, atol=1e-5))


@pytest.mark.parametrize("suffix", [".xml", ".tflite", ".pte", ".param"])
def test_a_runtime_that_is_missing_is_reported_with_its_line(
    suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, package, install = script.RUNTIMES[suffix]
    monkeypatch.setitem(sys.modules, package, None)
    actual = script.checked("f", {"file": f"f/model{suffix}", "tolerance": 1e-4, "exact": True})
    assert actual["verdict"] == "not checked"
    assert install in actual["why"]


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".onnx", "written without --golden-layers"),
        (".xml", "written without --golden-layers"),
        (".tflite", "written without --golden-layers"),
        (".pte", "takes no further output"),
        (".param", "written without --golden-layers"),
        (".ort", "those of the ONNX file"),
    ],
)
def test_a_form_without_values_between_layers_gives_its_reason(suffix: str, reason: str) -> None:
    actual = script.parting("f", {"file": f"f/model{suffix}", "tolerance": 1e-4, "exact": True})
    assert (actual["form"], actual["verdict"]) == ("f, between layers", "not checked")
    assert reason in actual["why"]
