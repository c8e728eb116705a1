"""The gate before shipping: is this file the network that was trained, and within its budgets?"""

from __future__ import annotations

from prunec.parity.file import verify_file
from prunec.parity.render import render
from prunec.parity.report import Check, Report

__all__ = ["Check", "Report", "render", "verify_file"]
