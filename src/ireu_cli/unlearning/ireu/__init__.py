"""The methods `ireu` and `global`, by gradient as published."""
