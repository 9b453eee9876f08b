"""Reading the files of encoders and networks."""
