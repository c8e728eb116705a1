"""Patterns of masks: sets of weights that are kept or masked together, one file each."""
