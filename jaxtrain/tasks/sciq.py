"""SciQ: science exam questions with a supporting text (Welbl et al. 2017, arXiv:1707.06209), four choices.

    (text)
    Question: Who proposed the theory of evolution by natural selection?
    Answer: darwin

Prompt as in lm-eval, without examples. The right choice is the last of the four in every item: order carries
nothing, since each choice is scored by itself.
"""

from typing import Any

from jaxtrain.tasks.task import Item, Task

CHOICES = ("distractor1", "distractor2", "distractor3", "correct_answer")


def parse(row: dict[str, Any]) -> Item:
    """`support`, `question`, `distractor1` to `3` and `correct_answer`."""
    context = f"{row['support'].lstrip()}\nQuestion: {row['question']}\nAnswer:"
    return Item(
        contexts=(context,) * 4, continuations=tuple(f" {row[choice]}" for choice in CHOICES), answer=3
    )


task = Task(
    name="sciq",
    version=1,
    metric="accuracy_per_byte",
    path="benchmarks/sciq.jsonl.gz",
    parse=parse,
    hub=("allenai/sciq", None, "validation"),
)
