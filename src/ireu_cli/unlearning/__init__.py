"""`ireu unlearn`: turn a mask into a delta."""
