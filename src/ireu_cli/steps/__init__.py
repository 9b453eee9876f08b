"""The four steps as pure functions over typed values."""
