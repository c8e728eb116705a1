"""Outputs of files and weights, by onnxruntime and torch, without prunec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from end_to_end_net import Tiny
from safetensors.torch import load_file

ROUNDING = 1e-4
"""Of the outputs' scale: what is below is not called another function."""
CLASSES, WIDTH = 2, 8
_GATE, _KERNEL = ".parametrizations.weight.0.gate", ".parametrizations.weight.original"


def probes() -> np.ndarray:
    """Inputs that nobody else has."""
    return np.random.default_rng(9).normal(size=(6, 3, 16, 16)).astype(np.float32)


def computed_by_file(path: Path) -> np.ndarray | None:
    """The outputs of an ONNX file on the probes; None where it does not run."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(str(path), options)
        return np.asarray(session.run(None, {session.get_inputs()[0].name: probes()})[0])
    except Exception:
        return None


def computed_by_weights(path: Path) -> np.ndarray | None:
    """The outputs of trained weights on the probes, their gates multiplied in; None: no such."""
    try:
        state = load_file(path)
        for key in [key for key in state if key.endswith(_GATE)]:
            name = key.removesuffix(_GATE)
            state[f"{name}.weight"] = state.pop(f"{name}{_KERNEL}") * state.pop(key)
        module = Tiny(CLASSES, WIDTH).eval()
        module.load_state_dict(state)
        with torch.no_grad():
            return module(torch.from_numpy(probes())).numpy()
    except Exception:
        return None


def differs(ours: np.ndarray | None, theirs: np.ndarray | None) -> bool:
    """Return whether outputs differ beyond rounding, or are missing."""
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return True
    gap = np.abs(ours - theirs).max()
    return not bool(gap <= ROUNDING * np.abs(ours).max())
