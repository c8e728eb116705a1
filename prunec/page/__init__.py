"""Report of a run: report.html, one page with everything about it, which opens offline."""

from __future__ import annotations

from prunec.page.page import page_text, write_report

__all__ = ["page_text", "write_report"]
