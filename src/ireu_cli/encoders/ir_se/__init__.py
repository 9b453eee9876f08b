"""facexlib's `ir_se50`: the network in torch and in ONNX, the adapter, and the family."""
