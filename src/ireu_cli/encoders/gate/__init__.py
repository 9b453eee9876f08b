"""A gate: the detectors of a delta alone, as a small ONNX file that looks at embeddings."""
