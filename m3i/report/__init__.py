"""The report pages: one self-contained HTML file each, made from one JSON file alone."""

from m3i.report.render import render_report, render_sweep

__all__ = ["render_report", "render_sweep"]
