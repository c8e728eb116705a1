"""Other machines: the worker that runs on them, and the connection to it."""
