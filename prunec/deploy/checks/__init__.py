"""Checks of a file before it ships, against the network, the run and the recipe."""

from __future__ import annotations

from prunec.deploy.checks.check import Check
from prunec.deploy.checks.details import Details
from prunec.deploy.checks.report import ExportReport, Report, render

__all__ = ["Check", "Details", "ExportReport", "Report", "render"]
