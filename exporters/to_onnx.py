"""Exporter of a network as one ONNX file: dynamic batch, stable names, the same bytes every
time.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import onnx
import onnx_ir
import onnxscript
import torch
from onnx.helper import find_min_ir_version_for
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, LiftConstantsToInitializersPass
from onnxscript import optimizer
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import (
    materialize_reshape_shape_rule,
    no_op_cast_rule,
    no_op_expand_rule,
)
from pydantic import Field
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import TensorArgument

from prunec.cost.lifetimes import Flow
from prunec.deploy.exporter import Exact, Source
from prunec.deploy.onnx_file import onnx_activations, onnx_operators, read_onnx
from prunec.deploy.onnx_operations import graph_of
from prunec.deploy.signature import (
    GRAPH_DIGEST,
    MADE_WITH,
    WEIGHTS_DIGEST,
    graph_digest,
    input_names,
)
from prunec.deploy.written import Written, WrittenGraph
from prunec.errors import PassError
from prunec.exporters._onnx_opset import opset_of, require_operators, to_opset
from prunec.exporters._onnx_pools import leave_out_windows
from prunec.exporters._onnx_program import (
    drop_inplace,
    make_bounds_alike,
    operator_of,
    spell_out_divisors,
    spell_out_fake_quantisation,
)
from prunec.exporters._onnx_quick import quick
from prunec.exporters._onnx_tidy import tidy
from prunec.graph.capture.samples import doubled
from prunec.graph.capture.tracing import trace
from prunec.models.state import roles, weights_digest

# Rules that use only shapes and types: they read no weight, so they change none.
_RULES = (materialize_reshape_shape_rule, no_op_cast_rule, no_op_expand_rule)

_NATIVE = 18  # earliest opset that torch.onnx writes
OLDEST, NEWEST = 9, 25
OLDEST_IR, NEWEST_IR = 4, 13  # IR versions of the oldest and the newest opset

PROTOBUF = 2**31  # bytes: protobuf's limit of one file; weights are stored inside


@dataclass(frozen=True)
class ToOnnx(Exact):
    """Write ONNX with a dynamic batch.

    Weights keep their names and bits: nothing is folded into them; runtimes do that when they load
    a file. ``opset`` is the version of ONNX's operators and ``ir_version`` that of the file format,
    by default the one introduced with the opset: old runtimes read only old ones.
    """

    suffix: ClassVar[str] = ".onnx"
    kinds: ClassVar[frozenset[torch.dtype]] = Exact.kinds | {torch.float64}

    opset: Annotated[int, Field(ge=OLDEST, le=NEWEST)] = _NATIVE
    ir_version: Annotated[int, Field(ge=OLDEST_IR, le=NEWEST_IR)] | None = None

    def write(self, source: Source, path: Path) -> None:
        """Write the network, in evaluation mode, on the CPU; it is not changed.

        Raises:
            UntraceableModel: the network cannot be captured with a dynamic batch.
            PassError: the network is in training mode, too large for one file, or ONNX cannot
                express it.
        """
        module = source.module
        if any(part.training for part in module.modules()):
            raise PassError("the network is in training mode", remedy="Call module.eval() first.")
        _require_small(module)
        model = _model(source, self.opset)
        model.ir_version = self.ir_version or find_min_ir_version_for(model.opset_import)
        properties = {
            MADE_WITH: _LIBRARIES,
            WEIGHTS_DIGEST: weights_digest(module),
            GRAPH_DIGEST: graph_digest(model),
            **source.metadata,
        }
        for key, value in sorted(properties.items()):
            model.metadata_props.add(key=key, value=value)
        _check(model)
        path.write_bytes(model.SerializeToString(deterministic=True))

    def graph_again(self, source: Source, written: Written) -> WrittenGraph | None:
        """Return the graph of the network, exported again at the file's opset."""
        opset = written.graph.opset if written.graph else self.opset
        model = _model(source, opset)
        model.metadata_props.add(key=MADE_WITH, value=_LIBRARIES)
        return graph_of(model)

    def read_back(self, path: Path) -> Written:
        """Return the content of an ONNX file."""
        return read_onnx(path)

    def flow(self, path: Path) -> Flow:
        """Return the activations of a file."""
        return onnx_activations(path)

    def operators(self, path: Path) -> list[tuple[str, str]]:
        """Return (name, operator) of every node."""
        return onnx_operators(path)


_LIBRARIES = ", ".join(
    f"{library.__name__} {library.__version__}" for library in (torch, onnx, onnxscript)
)


def _model(source: Source, opset: int) -> onnx.ModelProto:
    # Two samples: torch.export takes a size of 1 for fixed.
    program = trace(source.module, doubled(source.example), Dim("batch", min=1))
    _require_tensors(source.module, program)
    _require_no_projection(program)
    drop_inplace(program)
    spell_out_divisors(program)
    spell_out_fake_quantisation(program)
    make_bounds_alike(program)
    converted = _convert(program, max(opset, _NATIVE))
    require_operators(converted)
    model: onnx.ModelProto = tidy(to_opset(converted, opset), roles(source.module))
    return model


def _require_small(module: nn.Module) -> None:
    size = sum(x.nbytes for x in module.state_dict().values())
    if size >= PROTOBUF:
        raise PassError(
            f"weights of {type(module).__name__} are {size / 2**30:.1f} GiB; one ONNX file holds "
            f"{PROTOBUF / 2**30:g} GiB",
            remedy="Cut more channels, or take a smaller type: model.half().",
        )


def _require_tensors(module: nn.Module, program: ExportedProgram) -> None:
    for place, spec in enumerate(program.graph_signature.output_specs):
        if not isinstance(spec.arg, TensorArgument):
            value = getattr(spec.arg, "value", None)
            what = "a number that depends on the batch" if value is None else f"{value!r}"
            raise PassError(
                f"output {place} of {type(module).__name__} is {what}, and the outputs of an ONNX "
                "file are tensors",
                remedy="Return tensors only, or wrap the network in a module that does.",
            )


def _require_no_projection(program: ExportedProgram) -> None:
    """Refuse LSTMs with a projection: ONNX has none, and torch's exporter silently drops it."""
    for node in program.graph.nodes:
        if operator_of(node)[0] == "lstm":
            params, has_biases, layers, *_, bidirectional, _ = node.args[2:]
            cells = layers * (2 if bidirectional else 1)
            if len(params) > cells * (4 if has_biases else 2):
                raise PassError(
                    f"ONNX cannot express the projection of the LSTM at {node.name}",
                    remedy="Leave out proj_size, and put a linear layer after the LSTM.",
                )


def _reason(error: Exception) -> str:
    """Return the first two lines of torch's message, which state the error and its cause."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip(" -") for line in lines[:2])


def _convert(program: ExportedProgram, opset: int) -> onnx.ModelProto:
    """Return the ONNX graph with folded constants, unchanged weights and no comments."""
    with warnings.catch_warnings():
        # Warnings for developers of torch and onnxscript; real faults raise or fail the
        # verification.
        for category in (DeprecationWarning, FutureWarning, UserWarning):
            warnings.simplefilter("ignore", category)
        with quick():
            model = _exported(program, opset).model
        leave_out_windows(model)
        weights = set(program.state_dict)
        optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            should_fold=lambda node: None if _without_weights(node, weights) else False,
        )
        rewrite(model, _RULES)
        # tidy merges and numbers constants that are initialisers.
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        ClearMetadataAndDocStringPass()(model)
        converted = onnx_ir.to_proto(model)
    written = opset_of(converted)
    if written != opset:
        raise PassError(
            f"torch.onnx writes the network at opset {written}, not at opset {opset}",
            remedy=f"Ask for opset {written} ([[export]] opset, --opset).",
        )
    return converted


def _exported(program: ExportedProgram, opset: int) -> torch.onnx.ONNXProgram:
    signature = program.graph_signature
    try:
        converted = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=opset,
            input_names=list(input_names(len(signature.user_inputs))),
            optimize=False,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise PassError(
            f"torch.onnx cannot express the network at opset {opset}: {_reason(cause)}",
            remedy="Try a higher opset ([[export]] opset, --opset), or replace the operator in the "
            "network.",
        ) from error
    assert converted is not None
    return converted


def _without_weights(node: onnx_ir.Node, weights: set[str]) -> bool:
    if node.op_type in ("Shape", "Size"):
        return True
    return not any(value is not None and value.name in weights for value in node.inputs)


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise PassError(
            f"the exported graph is not valid ONNX: {error}",
            remedy="Try another opset ([[export]] opset), and report the network.",
        ) from error
