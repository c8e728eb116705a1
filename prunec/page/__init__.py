"""The page of a run: one file that a browser opens offline and that holds everything about it."""

from __future__ import annotations

from prunec.page.page import page_text, write_report

__all__ = ["page_text", "write_report"]
