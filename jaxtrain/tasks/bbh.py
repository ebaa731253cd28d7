"""BIG-Bench Hard, the part whose answer is one word or number (Suzgun et al. 2022, arXiv:2210.09261).

    Q: not ( True ) and ( True ) is
    A: False

The first three rows of a file are shown solved and are no questions. Graded by the answer as a whole, without
case and final point. The paper's examples reason step by step; these do not, so scores are those of direct
answers.
"""

from functools import partial
from typing import Any

from jaxtrain.tasks.task import Exercise, Shots, Task

PARTS = (
    "boolean_expressions",
    "causal_judgement",
    "navigate",
    "object_counting",
    "sports_understanding",
    "web_of_lies",
)


def parse(row: dict[str, Any]) -> Exercise:
    """`input` and `target`."""
    return Exercise(
        prompt=f"Q: {row['input']}\nA:",
        grade=partial(grade, row["target"]),
        stops=("\n", "Q:", "</s>", "<|im_end|>"),
        tokens=16,
    )


def grade(right: str, text: str) -> dict[str, float]:
    return {"exact_match": float(_bare(text) == _bare(right))}


def _bare(text: str) -> str:
    return text.strip().removesuffix(".").lower()


tasks = tuple(
    Task(
        name=f"bbh_{part}",
        version=1,
        metric="exact_match",
        path=f"benchmarks/bbh/{part}.json.gz",
        parse=parse,
        hub=("SaylorTwift/bbh", part, "test"),
        shots=Shots(count=3, render=lambda row: f"Q: {row['input']}\nA: {row['target']}"),
    )
    for part in PARTS
)
