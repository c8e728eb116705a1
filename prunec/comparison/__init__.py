"""Comparison of several recipes on equal terms: a grid of runs, one table, one plot, one page."""

from __future__ import annotations

from prunec.comparison.grid import Cell, Grid, expand
from prunec.comparison.results import Result, Row, aggregated

__all__ = ["Cell", "Grid", "Result", "Row", "aggregated", "expand"]
