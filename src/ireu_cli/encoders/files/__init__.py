"""The files that encoders and networks come in."""
