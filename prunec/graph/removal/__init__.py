"""Choice of the kept channels: constants, liveness, demands of the operators."""
