"""`ireu verify`: measure a delta and write a report."""
