"""Which channels stay: constants, liveness, and what the operators ask for."""
