"""Deployment: files by format, runtimes that run them, checks before they ship."""
