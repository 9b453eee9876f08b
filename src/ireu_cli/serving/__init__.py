"""Services that run: which encoder they hold, putting an export into them, and taking it out again."""
