"""GSM8K: word problems of grade school (Cobbe et al. 2021, arXiv:2110.14168) behind five solved ones.

    Question: A robe takes 2 bolts of blue fiber and half that much white fiber.  How many bolts in total …?
    Answer: It takes 2/2=<<2/2=1>>1 bolt of white fiber
    So the total amount of fabric is 2+1=<<2+1=3>>3 bolts of fabric
    #### 3

Graded as in lm-eval. `strict`: the number behind ####. `flexible`: the last number of the answer.
"""

import re
from functools import partial
from typing import Any

from jaxtrain.tasks.task import Exercise, Shots, Task

STOPS = ("Question:", "</s>", "<|im_end|>")
_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")


def parse(row: dict[str, Any]) -> Exercise:
    """`question` and `answer`, whose last line is `#### number`."""
    return Exercise(
        prompt=f"Question: {row['question']}\nAnswer:",
        grade=partial(grade, _bare(row["answer"].split("#### ")[1])),
        stops=STOPS,
    )


def grade(right: str, text: str) -> dict[str, float]:
    """1 where the number of the answer is `right`, by both ways to find it."""
    strict, numbers = _STRICT.search(text), _NUMBER.findall(text)
    return {
        "strict": float(strict is not None and _bare(strict[1]) == right),
        "flexible": float(bool(numbers) and _bare(numbers[-1]) == right),
    }


def _bare(number: str) -> str:
    return re.sub(r"\.$", "", re.sub(r"[,$]", "", number.strip())).lower()


task = Task(
    name="gsm8k",
    version=1,
    metric="strict",
    path="benchmarks/gsm8k_test.jsonl",
    parse=parse,
    hub=("openai/gsm8k", "main", "test"),
    shots=Shots(
        count=5,
        render=lambda row: f"Question: {row['question']}\nAnswer: {row['answer']}",
        path="benchmarks/gsm8k_train.jsonl.gz",
    ),
)
