"""The report page: one HTML file without scripts, network or parts outside it, drawn from result.json alone."""

from m3i.report.render import render_report

__all__ = ["render_report"]
