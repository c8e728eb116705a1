"""Outputs of a network and their rounding, computed once for all files compared with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from prunec.deploy.checks.rounding import Noise, Rounding, run

_MOST = 2**28  # bytes of outputs that are kept: nine forms of one network share them


class Reference:
    """A network that answers the same inputs once.

    Inputs are told apart by a digest of their contents. The network must not change while a
    reference to it is in use; it runs in the mode in which the caller put it.

    Args:
        module: network.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._rounding = Rounding(module)
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._noises: dict[tuple[str, bool, bool], list[Noise]] = {}
        self._bytes = 0

    def outputs(self, inputs: Sequence[Tensor]) -> list[np.ndarray]:
        """Return all outputs; callers do not write into them."""
        key = _digest(inputs)
        known = self._outputs.get(key)
        if known is None:
            known = run(self.module, inputs)
            if self._keeps(known):
                self._outputs[key] = known
        return known

    def noise(
        self,
        inputs: Sequence[Tensor],
        ours: Sequence[np.ndarray],
        *,
        whole: bool = False,
        moved: bool = True,
    ) -> list[Noise]:
        """Return the rounding of every output: see :meth:`Rounding.noise`."""
        digest = _digest(inputs)
        # The whole maximum serves where its first part is asked for.
        for key in ((digest, whole, True), (digest, whole, moved)):
            if key in self._noises:
                return self._noises[key]
        self._noises[key] = self._rounding.noise(inputs, ours, whole=whole, moved=moved)
        return self._noises[key]

    def undecided(self, inputs: Sequence[Tensor], ours: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return where rounding decides finiteness: see :meth:`Rounding.undecided`."""
        return self._rounding.undecided(inputs, ours)

    def _keeps(self, outputs: Sequence[np.ndarray]) -> bool:
        size = sum(values.nbytes for values in outputs)
        if self._bytes + size > _MOST:
            return False
        self._bytes += size
        return True


def _digest(inputs: Sequence[Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for values in inputs:
        digest.update(f"{values.dtype} {tuple(values.shape)};".encode())
        digest.update(values.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
