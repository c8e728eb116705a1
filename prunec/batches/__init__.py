"""Batches of a data set: transforms, loading by worker processes, checks of every image."""
