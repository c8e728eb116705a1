"""Registry of operator families: each operator name belongs to at most one."""

from __future__ import annotations

from prunec.graph.channels.family import Family
from prunec.graph.channels.operators.along import Along
from prunec.graph.channels.operators.attention import Attention
from prunec.graph.channels.operators.batch_norm import Norm
from prunec.graph.channels.operators.convolution import Convolution
from prunec.graph.channels.operators.deformable import Deformable
from prunec.graph.channels.operators.elementwise import Elementwise
from prunec.graph.channels.operators.embedding import Embedding
from prunec.graph.channels.operators.expand_as import ExpandAs
from prunec.graph.channels.operators.filled import Filled, FilledLike
from prunec.graph.channels.operators.group_norm import GroupNorm
from prunec.graph.channels.operators.identity import Identity
from prunec.graph.channels.operators.indexed_pool import IndexedPool, Unpool
from prunec.graph.channels.operators.instance_norm import InstanceNorm
from prunec.graph.channels.operators.items import Items
from prunec.graph.channels.operators.linear import Linear
from prunec.graph.channels.operators.move import Move
from prunec.graph.channels.operators.pad import Pad
from prunec.graph.channels.operators.pixel_shuffle import Fold, PixelShuffle, PixelUnshuffle, Unfold
from prunec.graph.channels.operators.prelu import Prelu
from prunec.graph.channels.operators.product import Einsum, Product
from prunec.graph.channels.operators.recurrent import Recurrent
from prunec.graph.channels.operators.reduction import Reduction
from prunec.graph.channels.operators.sampled import GridSample
from prunec.graph.channels.operators.triangle import Triangle
from prunec.graph.channels.operators.window import Window
from prunec.graph.channels.operators.within import Within

FAMILIES: tuple[type[Family], ...] = (
    Along, Attention, Convolution, Deformable, Einsum, Elementwise, Embedding, ExpandAs, Filled,
    FilledLike, Fold, GridSample, GroupNorm, Identity, IndexedPool, InstanceNorm, Items, Linear,
    Move, Norm, Pad, PixelShuffle, PixelUnshuffle, Prelu, Product, Recurrent, Reduction, Triangle,
    Unfold, Unpool, Window, Within,
)  # fmt: skip


def by_name(families: tuple[type[Family], ...] = FAMILIES) -> dict[str, type[Family]]:
    """Return operator name → family."""
    return {name: family for family in families for name in family.names}
