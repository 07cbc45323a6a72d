"""The report pages: one HTML file each without network or parts outside it, drawn from one JSON file alone."""

from m3i.report.render import render_report, render_sweep

__all__ = ["render_report", "render_sweep"]
