"""Additions: the smallest task with a verifiable answer, to learn by reinforcement on a CPU.

`python data/arithmetic/make.py` writes the files of configs/arithmetic_grpo beside it.
"""

import json
import random
from pathlib import Path

Row = dict[str, str]

TAUGHT, TESTED = 3000, 500
"""Problems of the supervised part and of the test; the rest is practised."""
COPIES = 2
"""Documents in which each taught problem stands."""
LINES = 30
"""Problems of a document."""


def additions(digits: int) -> list[Row]:
    """Every sum of two numbers of that many digits, said from the units up, as one adds: `23+49`, `27`.

    In this order a small model needs far fewer examples (Lee et al. 2023, "Teaching arithmetic to small
    transformers").
    """
    numbers = range(10 ** (digits - 1), 10**digits)
    return [{"question": f"{a}+{b}", "answer": str(a + b)[::-1]} for a in numbers for b in numbers]


def parts(digits: int = 2, seed: int = 0) -> dict[str, list[Row]]:
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
        lines = [f"{row['question']}={row['answer']}" for row in found["taught"]]
        rng.shuffle(lines)
        documents += [{"text": "\n".join(lines[at : at + LINES])} for at in range(0, len(lines), LINES)]
    files = {
        "documents": documents,
        "conversations": [
            {"prompt": row["question"], "completion": row["answer"]} for row in found["taught"]
        ],
        "practised": found["practised"],
        "tested": found["tested"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).parent)
