"""The methods `ireu` and `global`: as published, by gradient."""
