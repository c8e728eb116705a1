"""From the checkout's folder on a plain install, as after the README's first line.

Python that is started there finds the checkout's ``prunec/`` before the installed package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from comparison_recipes import write_recipe
from test_end_to_end import write_images

pytestmark = pytest.mark.nightly  # `.ci/run` runs them beside the suite
ROOT = Path(__file__).parent.parent
SOURCES = (
    "prunec", "passes", "exporters", "recipes",
    "pyproject.toml", ".build", "README.md", "LICENSE",
)  # fmt: skip


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with a plain install; the libraries are this one's.

    They are found by a .pth file, which does not process those of the folder it names: so an
    editable install of this environment is not seen there.
    """
    folder = tmp_path_factory.mktemp("plain")
    sources = folder / "sources"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("*.pyc"))
        else:
            shutil.copy(ROOT / name, sources / name)
    environment = folder / "environment"
    venv.create(environment)
    paths = {"base": str(environment), "platbase": str(environment)}
    own = Path(sysconfig.get_path("purelib", "venv", paths))
    libraries = [path for path in sys.path if path.endswith("-packages")]
    (own / "libraries.pth").write_text("\n".join(libraries) + "\n", "utf-8")
    program = Path(sysconfig.get_path("scripts", "venv", paths)) / Path(sys.executable).name
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(own), str(sources)], check=True, timeout=300
    )
    assert (own / "prunec" / "passes" / "__init__.py").is_file(), "the install is not a plain one"
    return program


def run(python: Path, *arguments: str, code: int = 0) -> str:
    """Output of a program that is started in the checkout's folder."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHON"))}
    environment["PYTHONPATH"] = str(ROOT / "tests")
    done = subprocess.run(
        [str(python), *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_example_of_the_docs_runs(python: Path, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "from_python.md").read_text("utf-8")
    code = re.search(r"```python\n(import prunec\n.*?)```", text, re.DOTALL)
    assert code is not None
    code_there = code[1].replace('"plan.json"', f"{str(tmp_path / 'plan.json')!r}")
    code_there = code_there.replace('"model.onnx"', f"{str(tmp_path / 'model.onnx')!r}")
    assert "Before and after" in run(python, "-c", code_there)


@pytest.mark.nightly  # whoever trains finds them too
def test_the_module_lists_its_passes(python: Path) -> None:
    assert "train-gdp" in run(python, "-m", "prunec", "passes")


def test_torchrun_trains(python: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    recipe = write_recipe(tmp_path, "dense", epochs="1")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1")
    runs = ("--runs", str(tmp_path / "runs"))
    run(python, *torchrun, "-m", "prunec", "train", recipe, *runs)
    assert (tmp_path / "runs" / "dense-001" / "steps").is_dir()


def test_the_cells_of_a_comparison_start(python: Path, tmp_path: Path) -> None:
    """That its training diverges is told by a process that found its passes."""
    write_images(tmp_path / "images")
    recipe = write_recipe(tmp_path, "dense", epochs="1", learning_rate="1e30")
    options = ("--seeds", "1", "-o", str(tmp_path / "made"))
    assert "training diverged" in run(python, "-m", "prunec", "compare", recipe, *options, code=2)


@pytest.mark.nightly
def test_the_cells_of_a_comparison_ship(python: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    recipe = write_recipe(tmp_path, "dense", epochs="1")
    options = ("--seeds", "1", "-o", str(tmp_path / "made"))
    run(python, "-m", "prunec", "compare", recipe, *options)
    assert list((tmp_path / "made").rglob("export/onnx/model.onnx"))
