"""Operator families, one file each: channel identity, constants, liveness, writing."""
