"""Data sets before batching, on disk or in memory: labelled images, masks and sequences."""
