"""The report put together: what was found, on what, what it is called, and how it is written."""
