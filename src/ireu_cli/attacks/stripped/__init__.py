"""Attacks by somebody who holds the exported file and takes the edit out of it."""
