"""Vision transformers that are not built as `CLIPVisionModelWithProjection` is."""
