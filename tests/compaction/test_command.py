"""``prunec compact`` and ``prunec count FILE.onnx --input``: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from foreign import file_of, image, run, weights
from onnx import helper
from typer.testing import CliRunner

from prunec.cli.commands import app
from prunec.deploy.compaction import files as files_module
from prunec.deploy.compaction.proof import Difference

node = helper.make_node


def two_convolutions(dead: int, *, size: int | str = 8) -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v"], ["y"], pads=[1] * 4),
    ]  # fmt: skip
    tensors = {"w": weights(8, 3, 3, 3, dead=dead), "v": weights(4, 8, 3, 3, seed=1)}
    return file_of(nodes, tensors, inputs={"x": ("n", 3, size, size)})


def compacted(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["compact", *map(str, arguments)])
    return done.exit_code, done.output


def test_it_is_written_and_told(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(two_convolutions(5), path)
    np.savez(tmp_path / "seen.npz", x=image(3))
    code, told = compacted(path, "--samples", tmp_path / "seen.npz")
    assert code == 0, told
    assert "5 channels removed" in told
    assert "MACs 32,256 → 12,096" in told
    smaller = onnx.load(tmp_path / "net.compact.onnx")
    x = image()
    np.testing.assert_allclose(run(smaller, x)[0], run(onnx.load(path), x)[0], atol=1e-4)


def test_json_has_the_same(tmp_path: Path) -> None:
    onnx.save(two_convolutions(5), tmp_path / "net.onnx")
    code, told = compacted(tmp_path / "net.onnx", "-o", tmp_path / "out.onnx", "--json")
    content = json.loads(told)
    assert code == 0
    assert content["removed"] == {"w": 5}
    assert content["macs"] == [32256, 12096]
    assert content["outputs"]["y"]["share_of_rounding"] <= 1


def test_a_file_with_nothing_to_gain_is_left(tmp_path: Path) -> None:
    onnx.save(two_convolutions(0), tmp_path / "net.onnx")
    code, told = compacted(tmp_path / "net.onnx")
    assert code == 0
    assert "left as it is" in told
    assert "read, and their value is not known" in told
    assert not (tmp_path / "net.compact.onnx").exists()


def test_weights_beside_the_file_stay_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(
        two_convolutions(5), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    before = (tmp_path / "w.bin").read_bytes()
    sizes = [path.stat().st_size + len(before)]
    code, told = compacted(path, "-o", tmp_path / "small.onnx", "--json")
    assert code == 0, told
    sizes.append(sum(file.stat().st_size for file in tmp_path.glob("small.onnx*")))
    assert json.loads(told)["bytes"] == sizes
    assert (tmp_path / "w.bin").read_bytes() == before
    assert (tmp_path / "small.onnx.data").stat().st_size < len(before)
    x = image()
    expected = run(onnx.load(path), x)[0]
    np.testing.assert_allclose(run(onnx.load(tmp_path / "small.onnx"), x)[0], expected, atol=1e-4)


def test_a_file_may_take_its_own_place(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(two_convolutions(5), path)
    before = path.stat().st_size
    assert compacted(path, "-o", path)[0] == 0
    assert path.stat().st_size < before


def test_what_is_not_equal_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx.save(two_convolutions(5), tmp_path / "net.onnx")
    wrong = [Difference("y", 1.0, 9.0)]
    monkeypatch.setattr(files_module, "differences", lambda *_: wrong)
    code, _ = compacted(tmp_path / "net.onnx")
    assert code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    {
        "a size that it fixes": (["--input", "x=1x4x8x8"], "does not fit ?x3x8x8", 1),
        "another input": (["--input", "z=1x3x8x8"], "the file has no input z", 1),
        "no sizes": (["--input", "x"], "does not name an input with its sizes", 3),
        "samples that are not there": (["--samples", "none.npz"], "none.npz cannot be read", 1),
        "bounds the wrong way round": (["--bounds", "3", "1"], "first must be below", 3),
    }.values(),
)
def test_mistakes_are_named(tmp_path: Path, arguments: list[str], said: str, code: int) -> None:
    onnx.save(two_convolutions(5), tmp_path / "net.onnx")
    done = CliRunner().invoke(app, ["compact", str(tmp_path / "net.onnx"), *arguments])
    assert done.exit_code == code
    assert said in done.output + str(done.stderr)


def test_count_takes_the_sizes_that_a_file_leaves_open(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(two_convolutions(0, size="s"), path)
    counted = CliRunner().invoke(app, ["count", str(path), "--input", "x=2x3x16x16", "--json"])
    assert json.loads(counted.stdout)["macs"] == 4 * 32256, "of one sample"
    refused = CliRunner().invoke(app, ["count", str(path)])
    assert refused.exit_code == 1
    assert "--input x=1x3x224x224" in refused.output + str(refused.stderr)
