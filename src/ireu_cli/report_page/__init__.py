"""The report as self-contained pages: no scripts, no network, and pictures inside the page."""

from ireu_cli.report_page.page import page
from ireu_cli.report_page.pictures import Picture
from ireu_cli.report_page.readers.for_the_auditor import audit_page
from ireu_cli.report_page.readers.for_the_person import person_page

__all__ = ["Picture", "audit_page", "page", "person_page"]
