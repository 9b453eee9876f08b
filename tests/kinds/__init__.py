"""Kinds that are none of ours, each in one file, which join through the doors that the tables have."""
