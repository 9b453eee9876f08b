"""`ireu inspect`: say what a file is, and whether it agrees with its record."""
