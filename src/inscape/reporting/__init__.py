"""One self-contained HTML file from any results."""

from inscape.reporting.health import Health, health
from inscape.reporting.page import report
from inscape.reporting.section import Finding, Section, section

__all__ = ["Finding", "Health", "Section", "health", "report", "section"]
