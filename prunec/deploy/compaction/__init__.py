"""From a finished ONNX file to the smaller file that computes the same."""
