"""`ireu export`: turn a delta into an encoder, in the files that generators load."""
