"""Training: the one loop, its data, models, checkpoints and progress; methods plug in."""
