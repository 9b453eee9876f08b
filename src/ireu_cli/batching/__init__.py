"""`ireu batch`: many requests through all four steps."""
