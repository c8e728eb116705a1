"""What is compared of a file before it ships, check by check."""

from __future__ import annotations

from prunec.deploy.checks.render import render
from prunec.deploy.checks.report import Check, ExportReport, Report

__all__ = ["Check", "ExportReport", "Report", "render"]
