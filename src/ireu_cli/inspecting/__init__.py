"""`ireu inspect`: what a file is, and whether it is as its record says."""
