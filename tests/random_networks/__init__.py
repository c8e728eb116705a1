"""Networks as plain data that a person can read when one of them fails, and their modules.

A :class:`Wiring` is steps; each kind of step stands in the file of its kind: layers as modules
(``modules``), layers in functional spellings (``spellings``), weights that are computed
(``computed``), state that is written in forward (``states``), what is made of the batch's size
(``of_batch``), writes in place (``writes``), constant pads (``pads``), everything without
parameters (``moves``); ``outputs`` are the types that a network returns. ``drawing`` draws them.
"""

from random_networks.network import RandomNet, network_of
from random_networks.wiring import Step, Wiring

__all__ = ["RandomNet", "Step", "Wiring", "network_of"]
