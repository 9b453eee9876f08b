"""`ireu apply`: pass embeddings that were stored earlier through the gates of a delta."""
