"""`ireu export`: a delta to an encoder in the files that generators load."""
