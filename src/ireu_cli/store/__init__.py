"""The only code that reads and writes artifacts and the run folder."""
