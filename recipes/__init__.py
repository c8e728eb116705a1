"""Recipes that come with prunec: complete, named, runnable."""
