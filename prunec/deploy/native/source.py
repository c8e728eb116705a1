"""C source of a program: its weights, the arguments of its calls, the functions that run it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

from prunec.deploy.native.builder import Builder, Place, Step, Value, Work
from prunec.deploy.native.layout import Layout, rounded
from prunec.deploy.native.memory import Memory, plan
from prunec.deploy.signature import file_digest

HEADERS = (
    "prunec_kernels.h", "prunec_weights.h", "prunec_vectors.h", "prunec_dense.h",
    "prunec_columns.h", "prunec_depthwise.h", "prunec_blocks.h", "prunec_linear.h",
    "prunec_plain.h", "prunec_planes.h", "prunec_pool.h",
    "prunec_choices.h",
)  # fmt: skip
INTEGER_HEADERS = ("prunec_bytes.h", "prunec_fours.h", "prunec_quads.h", "prunec_rows.h")
"""Kernels of programs in which tensors are bytes."""
_OF_BYTES = ("pn_fours", "pn_byte_", "pn_exchange")
"""Arguments of these kernels."""
LARGEST_SOURCE = 1 << 15
"""Bytes of weights up to which they are part of the source; more go into a file beside it.

A byte takes three characters in a source.
"""


@dataclass(frozen=True)
class Program:
    """A network as C, before it is written.

    Attributes:
        builder: its calls and data.
        memory: the plan of its workspace.
        metadata: key → value, embedded in the source.
    """

    builder: Builder
    memory: Memory
    metadata: Mapping[str, str]

    @property
    def in_source(self) -> bool:
        """Whether the weights are part of the source."""
        return len(self.builder.data.bytes) <= LARGEST_SOURCE

    @property
    def headers(self) -> tuple[str, ...]:
        """The kernels that the source includes."""
        integer = any(step.struct.startswith(_OF_BYTES) for step in self.builder.steps)
        return HEADERS + (INTEGER_HEADERS if integer else ())


def program(builder: Builder, metadata: Mapping[str, str]) -> Program:
    """Return a program with its workspace planned."""
    return Program(builder, plan(builder.steps, builder.sizes), metadata)


def write_program(made: Program, path: Path) -> None:
    """Write source, header, kernels, example, CMake file, and a weights file if they are large.

    Args:
        made: the program.
        path: path of the source; the other files go into its folder.
    """
    folder = path.parent
    path.write_text(_source(made, path.stem), "utf-8")
    names = {"MODEL": path.stem.upper(), "model": path.stem, "inputs": _count(made, "inputs")}
    names["outputs"] = _count(made, "outputs")
    names["blob"] = "" if made.in_source else f" {path.stem}.bin"
    for template, name in (
        ("model.h.in", f"{path.stem}.h"),
        ("example.c.in", "example.c"),
        ("CMakeLists.txt.in", "CMakeLists.txt"),
    ):
        (folder / name).write_text(Template(_packaged(template)).substitute(names), "utf-8")
    for name in made.headers:
        (folder / name).write_text(_packaged(name), "utf-8")
    if not made.in_source:
        path.with_suffix(".bin").write_bytes(made.builder.data.bytes)


def _first(headers: tuple[str, ...]) -> str:
    """Return the header that includes all others."""
    return INTEGER_HEADERS[0] if INTEGER_HEADERS[0] in headers else HEADERS[0]


def headers_of(source: str) -> tuple[str, ...]:
    """Return the names of the kernels that a written source includes."""
    return HEADERS + (INTEGER_HEADERS if f'#include "{INTEGER_HEADERS[0]}"' in source else ())


def _count(made: Program, which: str) -> str:
    return str(len(getattr(made.builder.network, which)))


def _packaged(name: str) -> str:
    return files("prunec.deploy.native").joinpath("kernels", name).read_text("utf-8")


def _source(made: Program, stem: str) -> str:
    steps = [step for step in made.builder.steps if step.code]
    data = made.builder.data.bytes
    parts = [
        f"/* A network compiled by prunec: {len(steps)} calls of kernels, "
        f"{len(data)} bytes of weights and tables.\n * cc -O2 -c {stem}.c\n */",
        f'#include "{stem}.h"\n\n{_sizes(made)}\n#include "{_first(made.headers)}"',
        _weights(data) if made.in_source else _beside(stem, data),
        *(_arguments(number, steps, made.memory) for number in range(len(steps))),
        _about(steps),
        _run(steps, integer=INTEGER_HEADERS[0] in made.headers),
        _description(made, stem),
        _functions(made, stem),
    ]
    return "\n\n".join(parts) + "\n"


def _sizes(made: Program) -> str:
    """Return what the kernels read: the sizes of the workspace and of each further thread's scratch
    memory, in floats, and the definitions of the program.
    """
    sizes = [step.fields.get("scratch_size", 0) for step in made.builder.steps]
    largest = max((size for size in sizes if isinstance(size, int)), default=0)
    lines = [f"#define {name} {value}" for name, value in made.builder.definitions.items()]
    lines += [f"#define PN_PEAK ((size_t){made.memory.peak})"]
    return "\n".join([*lines, f"#define PN_SCRATCH ((size_t){rounded(largest)})"])


def _weights(data: bytes) -> str:
    # As integers: halves and bytes lie among the floats.
    words = np.frombuffer(data, "<u4").tolist() or [0]
    lines = [", ".join(map(hex, words[i : i + 12])) for i in range(0, len(words), 12)]
    body = ",\n    ".join(lines)
    return (
        f"static const uint32_t words[] = {{\n    {body}}};\n"
        "static const float *const embedded = (const float *)(const void *)words;"
    )


def _beside(stem: str, data: bytes) -> str:
    return (
        f"/* weights: {stem}.bin, {len(data)} bytes */\nstatic const float *const embedded = NULL;"
    )


def _arguments(number: int, steps: Sequence[Step], memory: Memory) -> str:
    step = steps[number]
    fields = _planes(step, memory) if step.struct == "pn_planes" else _fields(step, memory)
    others = {key: value for key, value in step.fields.items() if isinstance(value, Step)}
    fields += [f".{key} = &step{steps.index(value)}" for key, value in others.items()]
    return (
        f"/* {_plain(step.layer)} */\n"
        f"static const struct {step.struct} step{number} = {{{', '.join(fields)}}};"
    )


def _plain(text: str) -> str:
    # Names stem from the file: none may end the comment, or hold a trigraph.
    return text.replace("*/", "* /").replace("/*", "/ *").replace("\n", " ").replace("??", "?")


def _planes(step: Step, memory: Memory) -> list[str]:
    layout, place = step.fields[""], step.fields["at"]
    assert isinstance(layout, Layout)
    assert isinstance(place, Place)
    return _of_layout(layout, memory.places[place.buffer])


def _of_layout(layout: Layout, at: int) -> list[str]:
    own = layout.planes
    numbers = {
        "at": at + own.at, "lead": layout.lead, "channels": own.channels, "plane": own.plane,
        "height": own.height, "width": own.width, "stride": own.stride,
    }  # fmt: skip
    return [f".{key} = {value}" for key, value in numbers.items()]


def _fields(step: Step, memory: Memory) -> list[str]:
    fields = []
    for key, value in step.fields.items():
        if isinstance(value, Layout):
            inner = ", ".join(_of_layout(value, memory.places[step.writes]))
            fields.append(f".{key} = {{{inner}}}")
        elif isinstance(value, Place):
            fields.append(f".{key} = {memory.places[value.buffer] + value.at}")
        elif not isinstance(value, Step):
            fields.append(f".{key} = {_number(value)}")
    return fields


def _number(value: Value) -> str:
    if isinstance(value, tuple):
        return "{" + ", ".join(map(str, value)) + "}"
    if isinstance(value, float):
        text = repr(float(np.float32(value)))
        return {"inf": "INFINITY", "-inf": "-INFINITY", "nan": "NAN"}.get(text, f"{text}F")
    return str(value)


def _about(steps: list[Step]) -> str:
    """Return the table of the work of every call, for profiles."""
    rows = []
    for step in steps:
        work = step.work or Work(_kernel(step), 0, 0, 0, 0, 0)
        numbers = (work.weights, work.live, work.products, work.stored, work.tensors)
        layer = step.makes or step.writes or step.layer
        texts = (f'"{_escaped(text.encode())}"' for text in (layer, work.kernel))
        rows.append("{" + ", ".join((*texts, *(f"{float(n):.17g}" for n in numbers), "0.0")) + "}")
    body = ",\n    ".join(rows)
    return f"#ifdef PRUNEC_PROFILE\nstatic struct pn_about about[] = {{\n    {body}}};\n#endif"


def _kernel(step: Step) -> str:
    """Return the name of a call's kernel without its prefix: ``pn_pool(&S, w)`` → ``pool``."""
    name = step.code.partition("(")[0]
    return name.removeprefix("pn_").removeprefix("k->").removeprefix("q->").replace("_", " ")


def _run(steps: list[Step], *, integer: bool) -> str:
    calls = "\n".join(
        f"    PN_STEP({number}, {step.code.rstrip(';')});".replace("&S", f"&step{number}")
        for number, step in enumerate(steps)
    )
    chosen = "    const struct pn_byte_kernels *q = pn_chosen_bytes();\n    (void)q;\n"
    bytes_of = chosen if integer else ""
    return (
        "static void run_sample(const struct pn_kernels *k, const float *d, float *w,\n"
        "                       const float *const *inputs, float *const *outputs, "
        f"size_t sample) {{\n    (void)k, (void)d, (void)sample;\n{bytes_of}{calls}\n}}"
    )


def _description(made: Program, stem: str) -> str:
    network = made.builder.network
    tensors = []
    for which in ("inputs", "outputs"):
        names = getattr(network, which)
        rows = []
        for name in names:
            sizes = made.builder.shape(name)
            shown = ", ".join(map(str, sizes)) or "0"
            sample = int(name not in network.whole)
            rows.append(f'{{"{name}", {len(sizes)}, {{{shown}}}, {sample}}}')
        body = ",\n    ".join(rows)
        tensors.append(f"static const struct {stem}_tensor {which}[] = {{\n    {body}}};")
    described = [
        '"prunec"', str(len(network.inputs)), str(len(network.outputs)),
        "the_inputs", "the_outputs",
        str(len(made.builder.data.bytes)), f"{made.memory.peak * 4}", f"{made.memory.total * 4}",
        f'"{file_digest(made.builder.data.bytes)}"',
        f'"{_text(made.metadata)}"',
    ]  # fmt: skip
    text = "\n".join(tensors).replace("tensor inputs[]", "tensor the_inputs[]")
    text = text.replace("tensor outputs[]", "tensor the_outputs[]")
    return f"{text}\nstatic const struct {stem}_description described = {{\n    " + (
        ", ".join(described) + "};"
    )


def _text(metadata: Mapping[str, str]) -> str:
    """Return metadata as one C string, one line per entry."""
    lines = (f"{key}={value}" for key, value in sorted(metadata.items()))
    return _escaped("\n".join(lines).encode("utf-8"))


def _escaped(text: bytes) -> str:
    return "".join(
        # Always three octal digits: a hexadecimal escape would go on into the digits that follow.
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text
    )


def _functions(made: Program, stem: str) -> str:
    chosen = "pn_chosen_bytes" if INTEGER_HEADERS[0] in made.headers else "pn_chosen"
    return Template(_packaged("functions.c.in")).substitute(model=stem, chosen=chosen)


def digest_of(folder: Path, names: list[str]) -> str:
    """Return the SHA-256 of files, by name and content."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0" + file_digest((folder / name).read_bytes()).encode())
    return digest.hexdigest()
