"""ARC-Easy: four-way questions of school science (Clark et al. 2018, arXiv:1803.05457), without examples.

    Question: Which technology was developed most recently?
    Answer: cellular telephone

Each choice's text is scored after "Answer:", as lm-eval does; the letters are not shown. The quoted number
is per byte, as OLMES has it (Gu et al. 2024, arXiv:2406.08446).
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`question`, `choices` {`text`, `label`} and `answerKey`, one of the labels."""
    texts, labels = row["choices"]["text"], row["choices"]["label"]
    context = f"Question: {row['question']}\nAnswer:"
    return Item(
        contexts=(context,) * len(texts),
        continuations=tuple(f" {text}" for text in texts),
        answer=labels.index(row["answerKey"]),
    )


task = Task(
    name="arc_easy",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/arc_easy.jsonl.gz",
    parse=parse,
    hub=("allenai/ai2_arc", "ARC-Easy", "test"),
)
