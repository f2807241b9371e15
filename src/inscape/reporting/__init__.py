"""One self-contained HTML file from any results."""

from inscape.reporting.page import report
from inscape.reporting.section import Finding, Section, section

__all__ = ["Finding", "Section", "report", "section"]
