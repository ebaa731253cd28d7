"""Additions: the smallest task with a verifiable answer, to learn by reinforcement on a CPU.

`python -m jaxtrain.tasks.arithmetic data/arithmetic` writes the files of configs/arithmetic_grpo.
"""

import json
import random
import sys
from pathlib import Path

from jaxtrain.tasks.verifiable import Problem

TAUGHT, TESTED = 3000, 500
"""Problems of the supervised part and of the test; the rest is practised."""
COPIES = 2
"""Documents in which each taught problem stands."""
LINES = 30
"""Problems of a document."""


def additions(digits: int) -> list[Problem]:
    """Every sum of two numbers of that many digits, said from the units up, as one adds: `23+49`, `27`.

    In this order a small model needs far fewer examples (Lee et al. 2023, "Teaching arithmetic to small
    transformers").
    """
    numbers = range(10 ** (digits - 1), 10**digits)
    return [Problem(f"{a}+{b}", str(a + b)[::-1]) for a in numbers for b in numbers]


def parts(digits: int = 2, seed: int = 0) -> dict[str, list[Problem]]:
    """All additions, each in one of three parts: `taught`, `practised` and `tested`."""
    problems = additions(digits)
    random.Random(seed).shuffle(problems)
    return {
        "taught": problems[:TAUGHT],
        "tested": problems[TAUGHT : TAUGHT + TESTED],
        "practised": problems[TAUGHT + TESTED :],
    }


def write(folder: Path) -> None:
    """`documents.jsonl` and `conversations.jsonl` of what is taught, and the problems of the other parts."""
    found = parts()
    rng = random.Random(1)
    documents = []
    for _ in range(COPIES):
        lines = [f"{problem.question}={problem.answer}" for problem in found["taught"]]
        rng.shuffle(lines)
        documents += [{"text": "\n".join(lines[at : at + LINES])} for at in range(0, len(lines), LINES)]
    files = {
        "documents": documents,
        "conversations": [{"prompt": p.question, "completion": p.answer} for p in found["taught"]],
        "practised": [vars(problem) for problem in found["practised"]],
        "tested": [vars(problem) for problem in found["tested"]],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
