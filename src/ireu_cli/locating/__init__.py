"""`ireu locate`: photos and an encoder to a mask of the features that carry identity."""
