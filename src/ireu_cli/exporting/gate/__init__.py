"""`ireu export --format gate`: the detectors of a delta alone, for generators that have no identity encoder."""
