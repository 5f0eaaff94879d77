"""A plan as one HTML page that needs no server: budgets to try, and how far to trust them."""

from .page import report_html, save_report

__all__ = ["report_html", "save_report"]
