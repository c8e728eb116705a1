"""Compaction: from a finished ONNX file to an equivalent smaller file."""
