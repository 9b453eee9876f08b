"""`ireu check`: is a file what its record says, which encoder does it hold, and what could bring the original back."""
