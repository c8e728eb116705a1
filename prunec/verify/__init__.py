"""The gate before shipping: is this file the network that was trained, and within its budgets?"""

from __future__ import annotations

from prunec.verify.file import verify_file
from prunec.verify.render import render
from prunec.verify.report import Check, Report

__all__ = ["Check", "Report", "render", "verify_file"]
