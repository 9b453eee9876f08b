"""Functions of tensors: no models, no files, no configuration."""
