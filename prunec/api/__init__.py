"""The public functions: what the command line does to a run, done to a network in Python.

``import prunec`` is enough; each public name is one of ``prunec``.

    compiled = prunec.compile(model, example)   # zeros in the weights say what is dead
    print(compiled.report)
    prunec.export_onnx(compiled.module, example, "model.onnx")
    assert prunec.verify(model, "model.onnx", example_inputs=example).passed

Compiling and counting need torch alone; onnx and onnxruntime are imported with :mod:`.shipping`.
"""
