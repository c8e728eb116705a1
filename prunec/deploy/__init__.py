"""What ships: files by format, the runtimes that run them, the checks before they ship."""
