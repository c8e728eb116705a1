"""Structure of a captured network: atoms, channel groups, constants, liveness, removal."""
