"""`ireu verify`: a delta to a report."""
