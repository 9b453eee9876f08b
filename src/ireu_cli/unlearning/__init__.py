"""`ireu unlearn`: a mask to a delta."""
