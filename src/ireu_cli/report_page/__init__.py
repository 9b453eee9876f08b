"""The report as one self-contained page: no scripts, no network, and pictures inside the page."""

from ireu_cli.report_page.page import page
from ireu_cli.report_page.pictures import Picture

__all__ = ["Picture", "page"]
