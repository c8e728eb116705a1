"""Bundles: all files that a device needs, in one folder or zip that is checked without prunec.

See docs/glossary.md: bundle, golden.
"""
