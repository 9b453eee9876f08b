"""Photos: their folders, their pixels, the faces in them, and face swaps between them."""
