"""Random networks that once broke a law, as small as could be, each with what went wrong."""

from __future__ import annotations

from random_networks import Step, Wiring

Case = tuple[Wiring, str, float]

CORPUS: dict[str, Case] = {
    # Four channels were read by kernels of one group and of two; those that even the groups were
    # chosen before it was known what else has to stay, and a second compile chose fewer.
    "grouped-beside-plain": (
        Wiring(
            (
                Step("conv", (0,), (8, 3, 1, 0)),
                Step("conv", (1,), (4, 1, 1, 0)),
                Step("conv", (0,), (4, 1, 1, 0)),
                Step("conv", (1,), (4, 1, 2, 0)),
            ),
            heads=(2, 3, 4),
            seed=359,
        ),
        "filters",
        0.15,
    ),
    # The channels of an input are one pinned channel, so the norm was left with one group.
    "group-norm-of-the-input": (
        Wiring(
            (Step("group-norm", (0,), (3,)), Step("conv", (0,), (4, 3, 1, 0))),
            heads=(1, 2),
            size=8,
        ),
        "readers",
        0.5,
    ),
    # Of two heads one stays; the depth of a single head may be cut, that of several may not.
    "one-head-stays": (
        Wiring(
            (Step("conv", (0,), (6, 3, 1, 0)), Step("attention", (1,), (2,))), heads=(2,), seed=0
        ),
        "weights",
        0.5,
    ),
    # One half becomes a constant; only then are its channels no longer joined to the other's.
    "joined-to-a-constant": (
        Wiring(
            (
                Step("conv", (0,), (8, 3, 1, 0)),
                Step("halves", (1,), (1,)),
                Step("conv", (1,), (4, 1, 1, 0)),
            ),
            heads=(2, 3),
            seed=4,
        ),
        "filters",
        0.5,
    ),
    # Nobody reads the padded value, which may not be empty: a zero of the padding stayed, and then
    # a channel beside it, for what was padded may not be empty either.
    "padded-and-unread": (
        Wiring(
            (
                Step("conv", (0,), (8, 1, 1, 0)),
                Step("conv", (1,), (4, 1, 4, 0)),
                Step("widen", (1,), (1,)),
            ),
            heads=(2, 3),
            size=8,
        ),
        "weights",
        0.04,
    ),
}
