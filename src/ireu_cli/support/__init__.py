"""Helpers for every package: bounds, stamps, paces, pieces, and the run's environment. Nothing about the subject."""
