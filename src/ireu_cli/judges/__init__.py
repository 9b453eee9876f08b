"""Networks that judge pictures: a face check, recognisers, an image network."""
