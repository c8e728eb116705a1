"""Comparison of two files under onnxruntime, judged by rounding in the first.

The first file also runs several times with every weight moved by one rounding of its type, up or
down: the largest change of an output is its noise, slice by slice. Outputs of the second file may
differ from the first by a multiple of the noise, the same as in ``prunec verify``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from prunec.cost.onnx_parameters import Use, is_parameter, uses
from prunec.cost.onnx_sizes import Sizes, inputs_of
from prunec.deploy.checks.rounding import MARGIN, Noise, noise_of, slices
from prunec.deploy.compaction.sizes import chosen_sizes
from prunec.errors import PrunecError
from prunec.wording import first_line

Batch = Mapping[str, np.ndarray]
InputRange = tuple[float, float]

_SEED = 20  # fixed, so that a proof can be repeated
_TURNS = ((0, 1), (0, 3), (1, 2))  # (choice of open sizes, batch size)
_RESIZES = frozenset({"Resize", "Upsample"})
# Operators between a stored tensor and the scales of a resize.
_GATHERS = frozenset({"Concat", "Cast", "Slice", "Identity", "Unsqueeze"})
_DRAWS = 5  # draws of roundings: one may by chance leave a number unchanged


@dataclass(frozen=True)
class Difference:
    """Largest difference of one output over all inputs.

    Attributes:
        output: name of the output.
        found: difference, in the output's unit.
        share: difference divided by the allowed one; above 1 the files are not equal.
    """

    output: str
    found: float
    share: float


def differences(
    first: onnx.ModelProto, second: onnx.ModelProto, batches: Sequence[Batch]
) -> list[Difference]:
    """Return the largest difference of each output of two files.

    Raises:
        PrunecError: a file does not run on the inputs.
    """
    # The last two say only which integers rounding decides: floats are judged by the draws.
    steps = (*(1.0 for _ in range(_DRAWS)), MARGIN, MARGIN)
    variants = (_moved(first, step, seed) for seed, step in enumerate(steps))
    sessions = [_session(first), *map(_session, variants)]
    other = _session(second)
    names = [value.name for value in first.graph.output]
    worst = {name: Difference(name, 0.0, 0.0) for name in names}
    for batch in batches:
        ours, *moved = (_run(session, batch) for session in sessions)
        theirs = _run(other, batch)
        for index, name in enumerate(names):
            seen = _difference(name, ours[index], theirs[index], [run[index] for run in moved])
            if seen.share >= worst[name].share:
                worst[name] = seen
    return list(worst.values())


def random_inputs(
    model: onnx.ModelProto, sizes: Sizes, bounds: InputRange | None
) -> Iterator[Batch]:
    """Yield random inputs of several batch sizes and of two sizes of all other open axes; several
    draws of each size where a file fixes all but few.

    Args:
        model: model of the file.
        sizes: sizes given by the user.
        bounds: range of the numbers; without it, floats are normal and integers are 0 to 2.
    """
    generator = np.random.default_rng(_SEED)
    every = {tuple(chosen.values()): chosen for chosen in _sizes(model, sizes)}
    for turn in range(max(len(every), len(_TURNS))):
        chosen = list(every.values())[turn % len(every)]
        yield {
            value.name: _random(value, chosen[value.name], generator, bounds)
            for value in inputs_of(model.graph)
        }


def _sizes(model: onnx.ModelProto, given: Sizes) -> Iterator[dict[str, tuple[int, ...]]]:
    """Yield the given sizes, and several batches at two sizes of all other open axes."""
    fixed = chosen_sizes(model.graph, given, 0)
    if given:
        yield {name: given.get(name) or size for name, size in fixed.items()}
    for turn, batch in _TURNS:
        chosen = chosen_sizes(model.graph, given, turn)
        yield {
            name: (batch, *size[1:]) if _open_batch(model, name) else size
            for name, size in chosen.items()
        }


def runnable(model: onnx.ModelProto, batches: Iterator[Batch]) -> list[Batch]:
    """Return the inputs that a file accepts; it may fix a size that it declares open.

    Raises:
        PrunecError: the file accepts none of them.
    """
    session, taken = _session(model), []
    refused: PrunecError | None = None
    for batch in batches:
        try:
            _run(session, batch)
            taken.append(batch)
        except PrunecError as error:
            refused = error
    if not taken and refused is not None:
        raise refused
    return taken


def given_inputs(model: onnx.ModelProto, path: Path) -> Batch:
    """Return the inputs stored in a file of arrays, by the names of the model's inputs.

    Raises:
        PrunecError: the file cannot be read, or lacks an input.
    """
    try:
        with np.load(path, allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
    except (OSError, ValueError) as error:
        raise PrunecError(
            f"{path} cannot be read: {first_line(error)}", remedy="Save it by numpy.savez."
        ) from error
    names = [value.name for value in inputs_of(model.graph)]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise PrunecError(
            f"{path} holds {', '.join(arrays) or 'nothing'}, but not {missing[0]}",
            remedy=f"Save one array for each input: numpy.savez(FILE, {names[0]}=…).",
        )
    return {name: arrays[name] for name in names}


def _open_batch(model: onnx.ModelProto, name: str) -> bool:
    value = next(v for v in inputs_of(model.graph) if v.name == name)
    dims = value.type.tensor_type.shape.dim
    return len(dims) > 1 and dims[0].dim_value <= 0


def _random(
    value: onnx.ValueInfoProto,
    size: tuple[int, ...],
    generator: np.random.Generator,
    bounds: InputRange | None,
) -> np.ndarray:
    kind = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    if size and not value.type.tensor_type.shape.dim:
        return np.asarray(size[0], kind)
    if np.issubdtype(kind, np.floating):
        drawn = generator.uniform(*bounds, size) if bounds else generator.standard_normal(size)
        return np.asarray(drawn).astype(kind)
    low, high = (int(bounds[0]), int(bounds[1])) if bounds else (0, 2)
    return np.asarray(generator.integers(low, high + 1, size)).astype(kind)


def _moved(model: onnx.ModelProto, step: float, seed: int) -> onnx.ModelProto:
    """Return the file with every weight moved by ``step`` roundings of its type, up or down."""
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    generator = np.random.default_rng((_SEED, seed))
    read = uses(moved.graph)
    held = [(tensor.name, tensor) for tensor in moved.graph.initializer]
    held += [(n.output[0], a.t) for n in moved.graph.node if n.op_type == "Constant"
             for a in n.attribute if a.name == "value"]  # fmt: skip
    for name, tensor in held:
        # Scales that move by a rounding could change the size of the output.
        if not is_parameter(tensor, read[name]) or _sets_sizes(read, read[name]):
            continue
        array = numpy_helper.to_array(tensor)
        if array.dtype in (np.float16, np.float32, np.float64):
            signs = generator.integers(0, 2, array.shape) * 2 - 1
            changed = array * (1 + step * np.finfo(array.dtype).eps * signs)
            tensor.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), tensor.name))
    return moved


def _sets_sizes(read: Mapping[str, Sequence[Use]], uses_of: Sequence[Use]) -> bool:
    """Return whether a resize reads a stored tensor, or a value made of it, as sizes or scales."""
    todo, seen = list(uses_of), set()
    while todo:
        node, place = todo.pop()
        if node.op_type in _RESIZES and place:
            return True
        if node.op_type in _GATHERS and node.output[0] not in seen:
            seen.add(node.output[0])
            todo += read.get(node.output[0], ())
    return False


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model.SerializeToString())
        try:
            return onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise PrunecError(f"onnxruntime cannot load the file: {first_line(error)}") from error


def _run(session: onnxruntime.InferenceSession, batch: Batch) -> list[np.ndarray]:
    try:
        return [np.asarray(output) for output in session.run(None, dict(batch))]
    except Exception as error:
        shown = ", ".join(f"{name}={'x'.join(map(str, x.shape))}" for name, x in batch.items())
        raise PrunecError(
            f"the file does not run on inputs of {shown}: {first_line(error)}",
            remedy="Give sizes that it takes: --input NAME=1x3x224x224.",
        ) from error


def _difference(
    name: str, ours: np.ndarray, theirs: np.ndarray, moved: Sequence[np.ndarray]
) -> Difference:
    if ours.shape != theirs.shape or any(ours.shape != x.shape for x in moved):
        equal = ours.shape == theirs.shape and np.array_equal(ours, theirs)
        return Difference(name, 0.0 if equal else np.inf, 0.0 if equal else np.inf)
    noise = _noise(ours, moved)
    if noise.undecided is not None:
        parted = (ours != theirs) & ~noise.undecided
        return Difference(name, float(parted.sum()), np.inf if parted.any() else 0.0)
    same = np.isfinite(ours) == np.isfinite(theirs)
    apart = np.abs(np.where(np.isfinite(ours), ours, 0) - np.where(np.isfinite(theirs), theirs, 0))
    if not ours.size or not bool(same.all()):
        share = 0.0 if same.all() else np.inf
        return Difference(name, share, share)
    finite = np.where(np.isfinite(ours), ours, 0)
    shares = [
        float((_largest(apart, axis) / noise.bounds(finite, axis)).max())
        for axis in slices(ours.shape)
    ]
    return Difference(name, float(apart.max()), max(shares))


def _noise(ours: np.ndarray, moved: Sequence[np.ndarray]) -> Noise:
    """Return the noise of an output over several draws of roundings."""
    if not np.issubdtype(ours.dtype, np.floating):
        return noise_of(ours, moved)
    with np.errstate(invalid="ignore"):
        apart = [np.nan_to_num(np.abs(x - ours), nan=0.0, posinf=0.0) for x in moved[:_DRAWS]]
    exact = np.where(np.isfinite(ours), ours, 0).astype(np.float64)
    return noise_of(ours, [exact, exact + np.maximum.reduce(apart)])


def _largest(values: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(a for a in range(values.ndim) if a != axis) if axis else None
    return np.atleast_1d(np.asarray(values.max(axis=others, initial=0.0), np.float64))
