"""Training: the loop with its step, state, checkpoints and progress; methods plug in."""
