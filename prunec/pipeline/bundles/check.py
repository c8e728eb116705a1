"""Check the bundle in which this file lies; needs only numpy and the runtime of a form.

python check.py                 every form whose runtime is installed
python check.py --form onnx     one form
python check.py --layers        also intermediate values: the first that differs is named
python check.py --json          print JSON

Digests come first: nothing is loaded from a bundle that was changed. Then each file runs the golden
samples, and is timed one sample at a time on one thread. Exit code 0: PASS; 2: something differs,
and is named; 1: nothing could be checked. The digests detect damage, not an attack: an attacker can
change them as well. Compare the sha256 of manifest.json, printed first, with one that you received
by another way.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
UNDECLARED = ("manifest.json", "model.sig")
Run = Callable[[list[np.ndarray]], list[np.ndarray]]


def changed_files(said: dict[str, Any]) -> list[str]:
    """Return one line per file that is changed, missing, a link or not declared."""
    flaws = []
    for folder, folders, names in os.walk(FOLDER):
        for name in folders + names:
            path = Path(folder) / name
            shown = path.relative_to(FOLDER).as_posix()
            if path.is_symlink():
                flaws.append(f"{shown} is a link")
            elif path.is_file() and shown not in (*UNDECLARED, *said["files"]):
                flaws.append(f"{shown} is not declared")
    for name, entry in sorted(said["files"].items()):
        path = FOLDER / name
        if ".." in name.split("/") or name.startswith("/"):
            flaws.append(f"{name} lies elsewhere")
        elif not path.is_file():
            flaws.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            flaws.append(f"{name} was changed: its sha256 is not the manifest's")
    # As prunec.store.records computes it; this file cannot import prunec.
    own = {key: value for key, value in said.items() if key != "record_digest"}
    digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()
    if digest != said.get("record_digest"):
        flaws.append("manifest.json was changed: its digest does not fit")
    return flaws


def load_onnxruntime(path: Path) -> tuple[Run, str]:
    """Load an ONNX or ORT file from its path, on one thread of the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    how = f"onnxruntime {onnxruntime.__version__}, CPU, 1 thread, from its path"
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True))), how


def load_openvino(path: Path) -> tuple[Run, str]:
    """Load OpenVINO's file in float32: by default it computes in bfloat16 where it can."""
    return compiled_openvino(path)


def compiled_openvino(model: Any) -> tuple[Run, str]:
    """Compile a path, or a model that OpenVINO has read."""
    import openvino

    pinned = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1"}
    compiled = openvino.Core().compile_model(model, "CPU", pinned)

    def run(inputs: list[np.ndarray]) -> list[np.ndarray]:
        outputs = compiled(inputs)
        return [np.array(outputs[output]) for output in compiled.outputs]

    return run, f"openvino {openvino.__version__.split('-')[0]}, CPU, 1 thread, f32"


def load_litert(path: Path) -> tuple[Run, str]:
    """Load LiteRT's file; it takes one sample at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (signature,) = interpreter.get_signature_list().values()
    runner = interpreter.get_signature_runner()
    made = runner.get_output_details()
    # By number: sorted by name, output_10 would come before output_2.
    outputs = [made[name]["index"] for name in sorted(signature["outputs"], key=number)]
    inputs = sorted(interpreter.get_input_details(), key=lambda entry: number(entry["name"]))

    def run(sample: list[np.ndarray]) -> list[np.ndarray]:
        for entry, values in zip(inputs, sample, strict=True):
            interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(index)) for index in outputs]

    return run, "LiteRT, XNNPACK, 1 thread, f32"


def number(name: str) -> int:
    """Return the number at the end of a name: output_10 comes after output_9."""
    digits = name.rpartition("_")[2].partition(":")[0]
    return int(digits) if digits.isdigit() else 0


def load_executorch(path: Path) -> tuple[Run, str]:
    """Load ExecuTorch's program on one thread; it takes one sample at a time.

    Without `executorch.runtime`, which imports the compiler: many seconds, and 500 MiB.
    """
    import torch

    package = "executorch.extension.pybindings"
    try:
        runtime = importlib.import_module(f"{package}._C")
    except ImportError:  # another version names it otherwise
        runtime = importlib.import_module(f"{package}.portable_lib")
    torch.set_num_threads(1)
    # A loaded program holds its threads: only before the first.
    if runtime._threadpool_get_thread_count() != 1:
        runtime._unsafe_reset_threadpool(1)
    method = runtime._load_program(str(path)).load_method("forward")

    def run(sample: list[np.ndarray]) -> list[np.ndarray]:
        made = method.call(tuple(torch.from_numpy(values) for values in sample))
        return [values.detach().numpy().copy() for values in made]

    return run, "ExecuTorch, XNNPACK, 1 thread, f32"


def load_ncnn(path: Path) -> tuple[Run, str]:
    """Load ncnn's file with halves, bfloat16 and Vulkan off; its samples have no batch axis."""
    run, how = extracting_ncnn(path)
    return lambda sample: [values[None] for values in run(sample)], how


def extracting_ncnn(path: Path, names: list[str] | None = None) -> tuple[Run, str]:
    """Load ncnn's file to compute the named values, which need not be outputs; else the outputs."""
    import ncnn

    net = ncnn.Net()
    # Light mode frees values, and lets layers overwrite them.
    net.opt.num_threads, net.opt.lightmode = 1, names is None
    net.opt.use_vulkan_compute = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{name}", False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError(f"ncnn cannot load {path.name}")

    def run(sample: list[np.ndarray]) -> list[np.ndarray]:
        extractor = net.create_extractor()
        for name, values in zip(net.input_names(), sample, strict=True):
            # clone: ncnn keeps no reference to the array that it is given.
            extractor.input(name, ncnn.Mat(np.ascontiguousarray(values[0])).clone())
        return [np.array(extractor.extract(name)[1]) for name in names or net.output_names()]

    return run, f"ncnn {ncnn.__version__}, 1 thread, f32"


PIP = "pip install onnxruntime"
RUNTIMES = {
    ".onnx": (load_onnxruntime, "onnxruntime", PIP),
    ".ort": (load_onnxruntime, "onnxruntime", PIP),
    ".xml": (load_openvino, "openvino", "pip install openvino"),
    ".tflite": (load_litert, "ai_edge_litert", "pip install ai-edge-litert"),
    ".pte": (load_executorch, "executorch", "pip install executorch"),
    ".param": (load_ncnn, "ncnn", "pip install ncnn"),
}


def arrays(folder: Path, kind: str) -> list[np.ndarray]:
    """Return the golden values of a kind, ``input`` or ``output``, in order; never unpickles."""
    count = len(list(folder.glob(f"{kind}_*.npy")))
    return [np.load(folder / f"{kind}_{i}.npy", allow_pickle=False) for i in range(count)]


def difference(actual: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return the largest difference, relative to each output's largest value; inf: undefined."""
    if [x.shape for x in actual] != [x.shape for x in expected]:
        return float("inf")
    worst = 0.0
    for one, other in zip(actual, expected, strict=True):
        a, b = one.astype(np.float64), other.astype(np.float64)
        # Equal infinities would differ by NaN.
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(invalid="ignore"):
            apart = np.where(same, 0.0, np.abs(a - b))
        if not np.isfinite(apart).all():
            return float("inf")
        largest = np.abs(b[np.isfinite(b)]).max(initial=0.0)
        # 1e-38, the smallest normal float32: an output of zeros alone is divided by it.
        worst = max(worst, float(apart.max(initial=0.0) / max(largest, 1e-38)))
    return worst


def resident_bytes() -> int | None:
    """Return the resident memory of this process; None where the system does not report it."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
    except OSError:
        return None
    # The line reads `VmRSS:  12345 kB`.
    held = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return 1024 * int(held[0]) if held else None


def milliseconds(run: Run, sample: list[np.ndarray]) -> dict[str, float | int]:
    """Return median, 95th percentile and interquartile range of the time of one sample, in ms."""
    times: list[float] = []
    started = time.perf_counter()
    run(sample)  # warm-up: the first run allocates memory
    # At least 11 runs for quartiles; then up to 201 runs or two seconds, so that slow files end.
    while len(times) < 11 or (len(times) < 201 and time.perf_counter() - started < 2):
        begun = time.perf_counter()
        run(sample)
        times.append(1000 * (time.perf_counter() - begun))
    low, median, high, most = (float(x) for x in np.percentile(times, [25, 50, 75, 95]))
    return {"median": median, "p95": most, "spread": high - low, "runs": len(times)}


def checked(form: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Check one form: return its verdict, how it was loaded, difference, time and memory."""
    known = RUNTIMES.get(Path(entry["file"]).suffix)
    if known is None:
        return {"form": form, "verdict": "not checked", "why": "no runtime of it is known here"}
    load, package, install = known
    try:
        importlib.import_module(package)
    except ImportError:
        return {"form": form, "verdict": "not checked", "why": f"no {package}: {install}"}
    own = FOLDER / "golden" / form
    inputs = arrays(FOLDER / "golden", "input")
    expected = arrays(own if own.is_dir() else FOLDER / "golden", "output")
    before = resident_bytes()
    try:
        run, how = load(FOLDER / entry["file"])
        count = range(len(inputs[0]))
        samples = [[np.ascontiguousarray(x[i : i + 1]) for x in inputs] for i in count]
        # One by one: some files take a single sample, and all forms are to be compared alike.
        made = [run(sample) for sample in samples]
        timed = milliseconds(run, samples[0])
    except Exception as error:  # runtimes raise what they happen to raise
        return {"form": form, "verdict": "FAIL", "why": f"it does not run: {str(error)[:300]}"}
    outputs = [np.concatenate(parts) for parts in zip(*made, strict=True)]
    apart, after = difference(outputs, expected), resident_bytes()
    passed = apart <= entry["tolerance"]
    wrong = f"outputs differ by {apart:.3g}, at most {entry['tolerance']:g} is allowed"
    return {
        "form": form,
        "verdict": "PASS" if passed else "FAIL",
        "why": "" if passed else wrong,
        "loaded": how,
        "of": "the network" if entry["exact"] else "this file where it was made",
        "difference": apart if np.isfinite(apart) else "inf",
        "milliseconds": timed,
        "resident_bytes": after,
        "resident_bytes_of_the_model": after - before if after and before else None,
    }


def between_onnxruntime(path: Path, layers: list[dict[str, str]]) -> tuple[Run, str]:
    """Load the copy of an ONNX file that outputs the values between its layers."""
    return load_onnxruntime(path.with_name("layers.onnx"))


def between_openvino(path: Path, layers: list[dict[str, str]]) -> tuple[Run, str]:
    """Add an output to every layer of OpenVINO's file, and load it."""
    import openvino

    model = openvino.Core().read_model(path)
    names = [layer["name"].rpartition(":") for layer in layers]
    ports = [(node, int(port)) for node, _, port in names]
    model.add_outputs(ports)
    ends = [result.input_value(0) for result in model.get_results()]
    made = [(end.get_node().get_friendly_name(), end.get_index()) for end in ends]
    run, how = compiled_openvino(model)

    def ordered(sample: list[np.ndarray]) -> list[np.ndarray]:
        # A value that was an output before has not been added again.
        outputs = dict(zip(made, run(sample), strict=True))
        return [outputs[port] for port in ports]

    return ordered, how


def between_litert(path: Path, layers: list[dict[str, str]]) -> tuple[Run, str]:
    """Load the copy of LiteRT's file that outputs the values between its layers."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path.with_name("layers.tflite")), num_threads=1)
    interpreter.allocate_tensors()
    inputs = sorted(interpreter.get_input_details(), key=lambda entry: number(entry["name"]))
    outputs = [entry["index"] for entry in interpreter.get_output_details()]

    def run(sample: list[np.ndarray]) -> list[np.ndarray]:
        for entry, values in zip(inputs, sample, strict=True):
            interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(index)) for index in outputs]

    return run, "LiteRT, XNNPACK, 1 thread, f32"


def between_ncnn(path: Path, layers: list[dict[str, str]]) -> tuple[Run, str]:
    """Load ncnn's file to compute the values between its layers."""
    return extracting_ncnn(path, [layer["name"] for layer in layers])


BETWEEN = {
    ".onnx": between_onnxruntime,
    ".xml": between_openvino,
    ".tflite": between_litert,
    ".param": between_ncnn,
}
# Suffix of a file -> why its runtime gives no intermediate values.
UNSEEN = {
    ".ort": "an .ort file is optimised and closed, and its values are those of the ONNX file",
    ".pte": "a program is compiled: XNNPACK computes it as one call, and takes no further output",
    ".zip": "Core ML runs only on macOS",
}


def parting(form: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Compare the intermediate values with those of the manifest; name the first that differs."""
    name, path = f"{form}, between layers", FOLDER / entry["file"]
    golden = FOLDER / "golden" / "layers" / form
    if "layers" not in entry or path.suffix not in BETWEEN:
        why = UNSEEN.get(path.suffix, "the bundle was written without --golden-layers")
        return {"form": name, "verdict": "not checked", "why": why}
    _, package, install = RUNTIMES[path.suffix]
    try:
        importlib.import_module(package)
    except ImportError:
        return {"form": name, "verdict": "not checked", "why": f"no {package}: {install}"}
    try:
        run, how = BETWEEN[path.suffix](path, entry["layers"])
        made = run([np.ascontiguousarray(x[:1]) for x in arrays(FOLDER / "golden", "input")])
    except Exception as error:  # the runtime raises what it happens to raise
        return {"form": name, "verdict": "FAIL", "why": f"it does not run: {str(error)[:300]}"}
    expected, layers = arrays(golden, "value"), entry["layers"]
    if not len(made) == len(expected) == len(layers):
        return {"form": name, "verdict": "FAIL", "why": "its values are not those of the manifest"}
    apart = [difference([one], [other]) for one, other in zip(made, expected, strict=True)]
    for place, (layer, off) in enumerate(zip(layers, apart, strict=True), start=1):
        if not off <= entry["tolerance"]:
            where = f"{layer['operator']} {layer['node']} ({layer['name']})"
            why = f"the first that differs is {where}, {place} of {len(layers)}, by {off:.3g}"
            return {"form": name, "verdict": "FAIL", "why": why, "layer": layer["name"]}
    why = f"all {len(layers)} values are equal within {max(apart, default=0.0):.3g}, {how}"
    return {"form": name, "verdict": "PASS", "why": why}


def shown(result: dict[str, Any]) -> str:
    """Return the result of a form as lines."""
    if "loaded" not in result:
        return f"{result['verdict']}  {result['form']}: {result['why']}"
    time_of, held = result["milliseconds"], result["resident_bytes"]
    memory = f", {held / 2**20:.0f} MiB resident" if held else ""
    return (
        f"{result['verdict']}  {result['form']}: {result['why'] or 'answers as ' + result['of']}\n"
        f"      loaded by {result['loaded']}\n"
        f"      {time_of['median']:.3f} ms median, {time_of['p95']:.3f} ms p95, "
        f"{time_of['spread']:.3f} ms spread over {time_of['runs']} runs{memory}"
    )


def main() -> int:
    """Check the bundle; return the exit code."""
    options = argparse.ArgumentParser(description="Check the bundle in which this file lies.")
    options.add_argument("--form", help="check only this form")
    options.add_argument("--layers", action="store_true", help="also compare intermediate values")
    options.add_argument("--json", action="store_true", help="print JSON")
    given = options.parse_args()
    data = (FOLDER / "manifest.json").read_bytes()
    said = json.loads(data)["additional_metadata"]["prunec"]
    if given.form and given.form not in said["forms"]:
        print(f"there is no form {given.form}; there are {', '.join(said['forms'])}")
        return 1
    flaws, results = changed_files(said), []
    # Nothing is loaded from files that are not those of the manifest.
    if not flaws:
        forms = [given.form] if given.form else list(said["forms"])
        results = [checked(form, said["forms"][form]) for form in forms]
        if given.layers:
            results += [parting(form, said["forms"][form]) for form in forms]
    verdicts = [one["verdict"] for one in results]
    code = 2 if flaws or "FAIL" in verdicts else 0 if "PASS" in verdicts else 1
    word = {0: "PASS", 1: "NOTHING CHECKED", 2: "FAIL"}[code]
    if given.json:
        report = {"verdict": word, "flaws": flaws, "forms": results, "machine": platform.platform()}
        print(json.dumps(report, indent=1))
        return code
    print(f"manifest.json, sha256 {hashlib.sha256(data).hexdigest()}")
    for line in [f"FAIL  {flaw}" for flaw in flaws] or ["PASS  every file is as it was written"]:
        print(line)
    for one in results:
        print(shown(one))
    print(word)
    return code


if __name__ == "__main__":
    sys.exit(main())
