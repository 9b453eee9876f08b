"""Drawn parts of the page, as SVG."""
