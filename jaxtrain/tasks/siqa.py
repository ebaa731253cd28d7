"""Social IQa: what people do, feel and mean (Sap et al. 2019, arXiv:1904.09728), three choices, no examples.

    Q: Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do before this?
    A: Find somewhere to go

Prompt as in lm-eval.
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`context`, `question`, `answerA` to `answerC` and `label`, "1" to "3"."""
    return Item(
        contexts=(f"Q: {row['context']} {row['question']}\nA:",) * 3,
        continuations=tuple(f" {row[choice]}" for choice in ("answerA", "answerB", "answerC")),
        answer=("1", "2", "3").index(str(row["label"])),
        unconditional="A:",
    )


task = Task(
    name="siqa",
    version=1,
    metric="accuracy",
    path="benchmarks/siqa.jsonl.gz",
    parse=parse,
    hub=("lighteval/siqa", None, "validation"),
)
