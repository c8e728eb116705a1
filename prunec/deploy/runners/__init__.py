"""Runners: one file per runtime on a device."""
