"""``report.html``: what a sweep has found, as a page that needs nothing else; made of its record alone."""

from sweepvi.sweep.report.page import REPORT, write

__all__ = ["REPORT", "write"]
