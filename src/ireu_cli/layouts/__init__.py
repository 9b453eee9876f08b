"""Layouts: the files that encoders are shipped in. Imports nothing, so that settings and `--help` may name them."""
