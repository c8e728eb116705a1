"""Bundles: everything that a device's owner needs, in one folder or zip, checked without prunec."""
