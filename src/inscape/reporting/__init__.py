"""One self-contained HTML file from any results."""
