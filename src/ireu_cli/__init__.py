"""ireu: make image generators unable to draw a particular person, by editing their image encoder.

Importing the package imports nothing heavy; torch starts inside the commands.
"""

__version__ = "0.1.0"
