"""Prints the tables of mutants below the results, from whichever process made them."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for title, lines in report.user_properties:
            if title.startswith("mutants") and report.when == "call":
                terminalreporter.section(title)
                terminalreporter.write("\n".join(lines) + "\n")
