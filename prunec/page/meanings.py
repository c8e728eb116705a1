"""Explanations of the checks, one sentence per check."""

from __future__ import annotations

from collections.abc import Iterable

SENTENCES = {
    "readable": "The file is complete and valid: bytes fit shapes, and the graph is consistent.",
    "inputs": "The file's inputs have the network's names, sizes and types.",
    "outputs": "The file has the network's outputs, in their order.",
    "interface": "The file's inputs and outputs are those of the network.",
    "file digest": "The file's bytes are those recorded when it was written.",
    "weights digest": "The digest of weights in the file's metadata fits its weights.",
    "graph digest": "The file's graph, without weights, is the recorded one.",
    "recipe digest": "The file was made by the recipe on this page.",
    "graph": "The file's graph equals that of a new export of the network, node by node.",
    "weights equal": "Every weight in the file equals the trained network's, bit for bit.",
    "MACs": "The torch graph and the file have equally many multiply-accumulates, by two counters "
    "that share no code.",
    "non-zero MACs": "Weights are zero in the same places in network and file.",
    "MACs in metadata": "The MACs in the file's metadata are those counted.",
    "parameters": "Network and file have equally many parameters.",
    "non-zero parameters": "Network and file have equally many non-zero parameters.",
    "outputs, random": "Network and file agree on random inputs, within the rounding of this "
    "network.",
    "outputs, test split": "Network and file agree on test samples, within rounding.",
    "top-1 agreement": "Share of test samples with the same prediction by network and file.",
    "pixel agreement": "Share of pixels with the same prediction by network and file.",
    "accuracy, percent": "The file's accuracy on the test split equals the network's.",
    "mIoU, percent": "The file's mIoU on the test split equals the network's.",
    "manifest": "The file and its costs are those recorded at export.",
    "history": "Costs recorded by the passes equal those counted now.",
    "records": "No record of the run was changed after it was written.",
    "golden values": "The file's outputs for the run's example equal those at export.",
    "integer layers, as run": "Layers stored in integers are computed in integers.",
    "integer sums, any processor": "Sums of integer products fit every processor's registers.",
    "budget: MACs": "The recipe's limit of multiply-accumulates.",
    "budget: MACs / dense": "The recipe's limit of MACs relative to the dense network.",
    "budget: parameters": "The recipe's limit of parameters.",
    "budget: bytes": "The recipe's limit of the file's size.",
    "budget: activation memory": "Peak memory of activations, by their lifetimes.",
    "budget: resident memory": "Measured memory of a process for the file, without the runtime's.",
    "budget: latency / dense": "The file's latency relative to the dense network's, measured in "
    "turns on this machine.",
    "budget: operators": "The target supports every operator of the file.",
    "budget: accuracy": "The recipe's lower limit of accuracy.",
    "budget: accuracy drop": "Accuracy below that of the network at the end of its dense phase.",
    "budget: mIoU": "The recipe's lower limit of mIoU.",
    "budget: mIoU drop": "mIoU below that of the network at the end of its dense phase.",
}
"""Name of a check → its explanation."""


def meanings(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name, explanation) of checks, each once; those of another runner share a row."""
    explained: dict[str, str] = {}
    for name in names:
        runner, colon, inner = name.partition(": ")
        if name in SENTENCES:
            explained[name] = SENTENCES[name]
        elif name.startswith("budget: latency on "):
            explained[name] = "Latency of one sample on that runner, beyond measurement noise."
        elif runner.startswith("train-"):
            explained[name] = "The goal of the training."
        elif colon and inner in SENTENCES:
            # One row for all checks of a runner: the table would be as long as the checks.
            explained[f"{runner}: …"] = f"The same check under {runner}, another runtime."
    return list(explained.items())
