"""BoolQ: yes-or-no questions about a passage (Clark et al. 2019, arXiv:1905.10044), without examples.

    …the energy balance…
    Question: does ethanol take more energy make that produces?
    Answer: no

Prompt as in lm-eval. Most answers are yes (62 % of the validation set): a model that always says so beats
chance.
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task


def parse(row: dict[str, Any]) -> Item:
    """`passage`, `question` and `answer`, true or false (or `label`, 1 or 0)."""
    answer = row["answer"] if "answer" in row else row["label"]
    context = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return Item(contexts=(context,) * 2, continuations=(" no", " yes"), answer=int(answer))


task = Task(
    name="boolq",
    version=1,
    metric="accuracy",
    path="benchmarks/boolq.jsonl.gz",
    parse=parse,
    hub=("google/boolq", None, "validation"),
)
