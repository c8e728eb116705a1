"""The gate before shipping: is this file the network that was trained, and within its budgets?"""

from __future__ import annotations

from prunec.deploy.checks.file import verify_file
from prunec.deploy.checks.render import render
from prunec.deploy.checks.report import Check, Report

__all__ = ["Check", "Report", "render", "verify_file"]
