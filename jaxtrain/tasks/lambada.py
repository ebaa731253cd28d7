"""LAMBADA: the last word of a passage, which its last sentence alone does not tell (Paperno et al. 2016,
arXiv:1606.06031). OpenAI's form of the text, as in lm-eval's `lambada_openai`.

The answer is right where each of its tokens is the model's first guess.
"""

from typing import Any

from jaxtrain.tasks.task import Blank, Task


def parse(row: dict[str, Any]) -> Blank:
    """`text`; or `context` and `continuation`, its last word."""
    text = row["text"] if "text" in row else f"{row['context']} {row['continuation']}"
    context, word = text.rsplit(" ", 1)
    return Blank(context=context, continuation=f" {word}")


task = Task(
    name="lambada",
    version=1,
    metric="accuracy",
    path="benchmarks/lambada.jsonl.gz",
    parse=parse,
    hub=("EleutherAI/lambada_openai", "default", "test"),
)
