"""`ireu locate`: find the features that carry identity, from photos and an encoder, and write them as a mask."""
