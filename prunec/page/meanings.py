"""What each check means, a sentence each, for whoever signs the page."""

from __future__ import annotations

from collections.abc import Iterable

SENTENCES = {
    "readable": "The file is whole and valid: its bytes fit its shapes, its graph fits itself.",
    "inputs": "Names, sizes and types of its inputs are those of the network.",
    "outputs": "It has the outputs of the network, in their order.",
    "interface": "Its inputs and outputs are those of the network.",
    "file digest": "Its bytes are those that were recorded when it was written.",
    "weights digest": "What the file says of its weights is what its weights are.",
    "graph digest": "What computes in it, weights aside, is what was recorded.",
    "recipe digest": "It was made by the recipe that this page shows.",
    "graph": "Its graph is the one that an export of the network writes, node by node.",
    "weights equal": "Every weight in it has the very bits of the trained network.",
    "MACs": "Torch's graph and the file's have as many multiply-accumulates, by two counters that "
    "share no rule.",
    "non-zero MACs": "Weights are zero in the same places in both.",
    "MACs in metadata": "What the file says of its MACs is what is counted.",
    "parameters": "As many parameters are in the file as in the network.",
    "non-zero parameters": "As many of them are not zero.",
    "outputs, random": "Network and file give the same on random inputs, within what rounding does "
    "to this network.",
    "outputs, test split": "They give the same on real samples, within what rounding does.",
    "top-1 agreement": "The share of test samples that network and file answer alike.",
    "pixel agreement": "The share of pixels that network and file answer alike.",
    "accuracy, percent": "The file's accuracy on the test split is the network's.",
    "mIoU, percent": "The file's mIoU on the test split is the network's.",
    "manifest": "What was recorded of the file at export is what is read now.",
    "history": "What the passes say they left is what is counted again.",
    "records": "No record of the run was changed after it was written.",
    "golden values": "The file answers the run's example as it did when it was exported.",
    "integer layers, as run": "The layers that the file has in integers run in integers.",
    "budget: MACs": "The recipe's limit of multiply-accumulates.",
    "budget: MACs / dense": "The recipe's limit of MACs, as a share of the dense network's.",
    "budget: parameters": "The recipe's limit of parameters.",
    "budget: bytes": "The recipe's limit of the file's size.",
    "budget: activation memory": "The most bytes of values that are held at once, by lifetimes.",
    "budget: resident memory": "What a process takes more for the file, measured.",
    "budget: latency / dense": "The file's time by the dense network's, in turns on this machine.",
    "budget: operators": "Every operator of the file is one that the target has.",
    "budget: accuracy": "The least accuracy that the recipe asks for.",
    "budget: accuracy drop": "How far the file lies below the network when its dense phase ended.",
    "budget: mIoU": "The least mIoU that the recipe asks for.",
    "budget: mIoU drop": "How far the file lies below the network when its dense phase ended.",
}
"""Name of a check → what it means."""


def meanings(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of checks with their sentences, each once; one of a runner as it is."""
    found: dict[str, str] = {}
    for name in names:
        runner, colon, inner = name.partition(": ")
        if name in SENTENCES:
            found[name] = SENTENCES[name]
        elif name.startswith("budget: latency on "):
            found[name] = "A sample's time on that runner, its noise aside."
        elif runner.startswith("train-"):
            found[name] = "What the training was asked to reach."
        elif colon and inner in SENTENCES:
            found[f"{runner}: …"] = f"The same under {runner}, another runtime."
    return list(found.items())
