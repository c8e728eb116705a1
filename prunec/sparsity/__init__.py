"""Mask engine: masked kernels, spread over layers, schedules, criteria to drop and to grow
weights.
"""
