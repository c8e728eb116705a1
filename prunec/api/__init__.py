"""Public functions: compile, count, export and verify networks from Python.

``import prunec`` is enough: each public name is an attribute of ``prunec``.

    compiled = prunec.compile(model, example)   # removes channels that zero weights make dead
    print(compiled.report)
    prunec.export_onnx(compiled.module, example, "model.onnx")
    assert prunec.verify(model, "model.onnx", example_inputs=example).passed

Compiling and counting need only torch; onnx and onnxruntime are imported with :mod:`.shipping`.
"""
