"""HellaSwag: which of four endings follows (Zellers et al. 2019, arXiv:1905.07830), without examples.

    Roof shingle removal: A man is sitting on a roof. He starts pulling up roofing on a roof.

Prompt as in lm-eval: WikiHow's brackets are taken out; the quoted number is per byte.
"""

import re
from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`activity_label`, `ctx_a`, `ctx_b`, four `endings` and `label`, 0 to 3."""
    context = _plain(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
    endings = tuple(f" {_plain(ending)}" for ending in row["endings"])
    return Item(
        contexts=(context,) * len(endings), continuations=endings, answer=int(row["label"]), unconditional=""
    )


def _plain(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


task = Task(
    name="hellaswag",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/hellaswag.jsonl.gz",
    parse=parse,
    hub=("Rowan/hellaswag", None, "validation"),
)
