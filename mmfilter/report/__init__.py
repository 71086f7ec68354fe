"""The report: one HTML file that shows what was kept, what was dropped and why."""

from .build import ReportOptions, build_report

__all__ = ["ReportOptions", "build_report"]
