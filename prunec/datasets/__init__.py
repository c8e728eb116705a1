"""Data sets as they lie on disk or in memory: labelled images, masks and sequences."""
