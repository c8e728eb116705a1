"""Runners on other machines: a worker beside this process, one behind a real sshd, one in qemu."""

from __future__ import annotations

import signal
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnxruntime
import pytest
from devices import Beside, sshd
from ship_nets import FakeData, Shipped

from prunec import catalogue
from prunec.deploy.devices import sysroot
from prunec.deploy.gate import verify_elsewhere
from prunec.deploy.layer_times import layer_file
from prunec.deploy.runner import Runner, once
from prunec.deploy.runners.onnxruntime import Onnxruntime
from prunec.deploy.runners.qemu_aarch64 import QemuAarch64
from prunec.deploy.runners.ssh import Ssh
from prunec.errors import PrunecError, RecipeError
from prunec.exporters.to_onnx import ToOnnx
from prunec.graph.channels.counted import LayerShape
from prunec.recipe import VerifySpec


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    made = Beside(temporary=str(tmp_path_factory.mktemp("there")))
    yield made
    made.close()
    assert not list(Path(made.temporary).iterdir())  # nothing is left there


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with sshd(tmp_path_factory.mktemp("sshd")) as place:
        yield place


def answers_alike(runner: Runner, path: Path, bound: float) -> None:
    here, there = Onnxruntime().open(path), runner.open(path)
    assert list(there.input_shapes) == list(here.input_shapes)
    assert list(there.input_names) == list(here.input_names)
    assert list(there.input_types) == list(here.input_types)
    batches = [here.noise(size) for size in (1, 3)]
    for ours, theirs in zip(here.run(batches), there.run(batches), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.shape == b.shape
            assert np.abs(a - b).max() <= bound


def test_a_device_answers_as_this_machine(beside: Beside, shipped: Shipped) -> None:
    answers_alike(beside, shipped.path, 0.0)
    loaded = beside.open(shipped.path)
    latency = loaded.time(loaded, rounds=1)
    assert latency.shipped_ms > 0
    assert {layer.operator for layer in loaded.profile(loaded.noise(1), runs=2)} >= {"Conv"}
    assert beside.identity.name == "beside"


def test_a_device_says_what_it_cannot_do(beside: Beside, shipped: Shipped, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(b"nothing")
    with pytest.raises(PrunecError, match=r"beside cannot load .*wrong\.onnx"):
        beside.open(wrong)
    loaded = beside.open(shipped.path)
    with pytest.raises(PrunecError, match="beside cannot run"):
        once(loaded, [np.zeros((1, 4, 16, 16), np.float32)])
    with pytest.raises(PrunecError, match="1 inputs, 2 given"):
        once(loaded, [np.zeros((1, 3, 16, 16), np.float32)] * 2)
    with pytest.raises(PrunecError, match="cannot be read"):
        beside.open(tmp_path / "none.onnx")
    for name in ("../out", "/tmp/out", "a/../../out"):
        with pytest.raises(PrunecError, match="lies outside the folder"):
            beside.ask("put", [b"x"], names=[name])
    assert len(once(loaded, loaded.noise(1))) == 1  # none of it harmed the worker


def test_a_worker_that_ended_is_reported_and_begins_anew(shipped: Shipped, tmp_path: Path) -> None:
    device = Beside(temporary=str(tmp_path))
    loaded = device.open(shipped.path)
    process = device.channel._process
    assert process
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PrunecError, match="beside"):
        once(loaded, loaded.noise(1))  # the file is gone with it
    answers_alike(device, shipped.path, 0.0)
    device.close()


def script(path: Path, text: str) -> tuple[str]:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return (str(path),)


def test_a_provider_that_cannot_start_is_not_replaced_by_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime logs a warning, and computes on the CPU."""
    path = tmp_path / "layer.onnx"
    onnx.save(layer_file(LayerShape("linear", 4, 3, size=(1,))), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: session)
    Onnxruntime().open(path)
    with pytest.raises(PrunecError, match="cannot start CUDAExecutionProvider here"):
        Onnxruntime(provider="CUDA").open(path)
    named = Onnxruntime(provider="CUDA").identity
    assert named.name == "onnxruntime://cuda"
    assert named.device.endswith("CUDA, f32")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("echo no such board >&2; exit 3", "beside: no such board"),
        ("exit 3", "beside: it ended without a message"),
        ("yes login | head -c 200000", "beside: it ended without a message"),
        (f'exec {sys.executable} -I -S "$@"', "beside: missing package: "),
    ],
)
def test_a_worker_that_does_not_begin_is_reported(text: str, wrong: str, tmp_path: Path) -> None:
    device = Beside(command=script(tmp_path / "python", text))
    with pytest.raises(PrunecError, match=wrong):
        _ = device.identity
    device.close()
    with pytest.raises(PrunecError, match="cannot be run: No such file"):
        _ = Beside(command=(str(tmp_path / "none"),)).identity


def test_what_a_login_prints_is_no_answer(shipped: Shipped, tmp_path: Path) -> None:
    device = Beside(command=script(tmp_path / "python", f'echo hello\nexec {sys.executable} "$@"'))
    answers_alike(device, shipped.path, 0.0)
    device.close()


PLACES = {
    "pi@board": ("board", "pi", 0, "python3"),
    "board": ("board", "", 0, "python3"),
    "board/": ("board", "", 0, "python3"),
    "pi@10.0.0.7:2222": ("10.0.0.7", "pi", 2222, "python3"),
    "pi@[fe80::1]:22": ("fe80::1", "pi", 22, "python3"),
    "pi@board/home/pi/venv/bin/python": ("board", "pi", 0, "/home/pi/venv/bin/python"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_place_names_host_user_port_and_python(place: str) -> None:
    actual = Ssh.at(place)
    assert (actual.host, actual.user, actual.port, actual.interpreter) == PLACES[place]
    assert Ssh.at(actual.name.removeprefix("ssh://")).host == actual.host


@pytest.mark.parametrize(
    "place",
    ["", "pi@", "-oProxyCommand=x", "pi@-x", "board:0", "board:70000", "board:x", "a b", "board;x",
     "pi:secret@board", "board/x;y", "board/$(x)", "board\nx", "bоard"],
)  # fmt: skip
def test_what_names_no_host_is_refused_before_anything_is_run(place: str) -> None:
    with pytest.raises(RecipeError, match="does not name a host"):
        catalogue.runner_named(f"ssh://{place}")


def test_a_runner_is_found_by_what_it_opens() -> None:
    assert catalogue.runner_by("", ".onnx") == Onnxruntime()
    with pytest.raises(RecipeError, match=r"qemu-aarch64 does not open \.xml files"):
        catalogue.runner_by("qemu-aarch64", ".xml")
    with pytest.raises(RecipeError, match="has no execution provider 'board'") as caught:
        catalogue.runner_named("onnxruntime://board")
    assert "It has" in caught.value.remedy
    assert "cpu" in caught.value.remedy
    with pytest.raises(RecipeError, match="needs the name of an execution provider"):
        catalogue.runner_named("onnxruntime://")
    assert catalogue.runner_named("onnxruntime://CPU") == Onnxruntime()
    assert all(runner.unasked for runner in catalogue.other_runners(".onnx"))


@pytest.mark.slow
def test_a_board_behind_ssh(server: str, shipped: Shipped) -> None:
    board = catalogue.runner_named(f"{server}{sys.executable}")
    answers_alike(board, shipped.path, 0.0)
    assert board.identity.name == server
    loaded = board.open(shipped.path)
    assert loaded.time(loaded, rounds=1).shipped_ms > 0
    board.close()  # type: ignore[attr-defined]


def test_what_is_wrong_with_a_board_is_reported(server: str, tmp_path: Path) -> None:
    host, _, port = server.rpartition(":")
    without = script(tmp_path / "python", f'exec {sys.executable} -I -S "$@"')[0]
    wrong = {
        f"{server}{without}": r"has no (numpy|onnxruntime)\nInstall it there: .*pip install",
        f"{server}/no/python": "has no /no/python\nInstall it there: ssh -p",
        f"{host}:1": "cannot be reached, .*refused\nTry by hand",
        f"ssh://nobody-of-this-name@127.0.0.1:{port}": "cannot be reached, .*Permission denied",
        "ssh": "ssh does not name a host",
    }
    for place, message in wrong.items():
        with pytest.raises(PrunecError) as error:
            _ = catalogue.runner_named(place).identity
        assert error.match(message), place


def test_a_missing_client_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNEC_SSH", "no-such-ssh -v")
    with pytest.raises(PrunecError, match="there is no no-such-ssh here\nInstall it"):
        _ = Ssh.at("board").identity


def emulated() -> QemuAarch64:
    try:
        sysroot.command()
    except PrunecError as error:
        pytest.skip(f"{error.message}: {error.remedy}")
    return QemuAarch64()


@pytest.mark.slow
def test_an_emulated_processor_answers_within_rounding_and_is_not_timed(shipped: Shipped) -> None:
    runner = emulated()
    answers_alike(runner, shipped.path, 1e-5)
    loaded = runner.open(shipped.path)
    with pytest.raises(PrunecError, match="times under qemu say nothing of a device"):
        loaded.time(loaded)
    with pytest.raises(PrunecError, match="times under qemu"):
        loaded.profile(loaded.noise(1))
    assert runner.identity.device.startswith("aarch64, ")
    runner.close()


def test_what_emulation_lacks_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sysroot, "QEMU", ("true",))
    with pytest.raises(PrunecError, match="prunec runners setup qemu-aarch64"):
        _ = QemuAarch64().identity
    for text in ("", "[", '{"schema": 0}', '{"schema": 1, "python": "gone"}'):
        place = tmp_path / "prunec" / "qemu-aarch64" / "setup.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        with pytest.raises(PrunecError, match="prunec runners setup qemu-aarch64"):
            sysroot.command()
    monkeypatch.setattr(sysroot, "QEMU", ("no-such-qemu",))
    for call in (sysroot.emulator, lambda: sysroot.set_up(print)):
        with pytest.raises(PrunecError, match="apt-get install qemu-user-static"):
            call()


def test_a_failed_setup_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sysroot, "QEMU", ("true",))
    monkeypatch.setattr(sysroot, "_PACKAGES", ())
    monkeypatch.setattr(sysroot, "_MIRRORS", {"debian": "file:///none", "ubuntu": "file:///none"})
    kept = tmp_path / "prunec" / "qemu-aarch64" / "kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(PrunecError):
        sysroot.set_up(lambda _: None)
    assert [path.name for path in kept.parent.parent.iterdir()] == ["qemu-aarch64"]
    assert kept.exists()


@dataclass(frozen=True)
class Few(Beside):
    """Answers three test images."""

    samples: ClassVar[int | None] = 3


@pytest.mark.parametrize(("kind", "count"), [(Beside, 3), (Few, 2)])
def test_a_slow_device_answers_the_first_test_images(
    kind: type[Beside], count: int, shipped: Shipped
) -> None:
    device = kind()
    options = {"exporter": ToOnnx(), "runner": device, "spec": VerifySpec(), "data": FakeData()}
    checks, untold = verify_elsewhere(shipped.path, shipped.module, shipped.example, **options)  # type: ignore[arg-type]
    assert len(checks) == count
    assert all(check.passed and check.name.startswith("beside: ") for check in checks)
    assert [text for text in untold if "all but the first 3 test images" in text] == untold
    assert bool(untold) == (kind is Few)
    wrong = shipped.path.parent / "none.onnx"
    checks, _ = verify_elsewhere(wrong, shipped.module, shipped.example, **options)  # type: ignore[arg-type]
    assert [check.passed for check in checks] == [False]  # it was asked for by name
    device.close()
