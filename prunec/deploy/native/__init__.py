"""Networks as C: an ONNX graph of one sample, its tensors in a workspace, the calls of kernels."""
