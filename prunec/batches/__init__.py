"""From a data set to batches: transforms, loading by workers, checks of every image."""
