"""Runs a notebook's cells of code in this process, one after the other, as Jupyter would.

``python tests/notebook.py docs/tour.ipynb`` writes what they print into the notebook.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_notebook(notebook: dict[str, Any]) -> list[str]:
    """Return what each cell of code prints, the value of its last expression included.

    Raises:
        Exception: whatever a cell raises.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    return [
        _run("".join(cell["source"]), names)
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def _run(source: str, names: dict[str, Any]) -> str:
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
            if value is not None:
                print(repr(value))
    return printed.getvalue()


def _with_outputs(notebook: dict[str, Any]) -> dict[str, Any]:
    printed = iter(run_notebook(notebook))
    for number, cell in enumerate(c for c in notebook["cells"] if c["cell_type"] == "code"):
        text = next(printed).splitlines(keepends=True)
        outputs = [{"output_type": "stream", "name": "stdout", "text": text}] if text else []
        cell |= {"outputs": outputs, "execution_count": number + 1}
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        written = _with_outputs(json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", "utf-8")
