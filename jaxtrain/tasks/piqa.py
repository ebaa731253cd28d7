"""PIQA: which of two ways reaches an everyday goal (Bisk et al. 2020, arXiv:1911.11641), without examples.

    Question: Find spices easily in the kitchen.
    Answer: Arrange your spices alphabetically to make finding them easy.

Prompt as in lm-eval; the quoted number is per byte, as OLMES has it (Gu et al. 2024, arXiv:2406.08446).
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`goal`, `sol1`, `sol2` and `label`, 0 or 1."""
    context = f"Question: {row['goal']}\nAnswer:"
    return Item(
        contexts=(context,) * 2,
        continuations=(f" {row['sol1']}", f" {row['sol2']}"),
        answer=int(row["label"]),
    )


task = Task(
    name="piqa",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/piqa.jsonl.gz",
    parse=parse,
    hub=("baber/piqa", None, "validation"),
)
