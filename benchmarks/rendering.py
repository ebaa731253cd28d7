"""What rendering conversations costs beside another checkout of this project.

git worktree add ../before 0737ed4
python benchmarks/rendering.py FOLDER ../before     writes benchmarks/results/rendering.json

FOLDER: of a published model with its chat template. Conversations of six turns are made of the quickstart's
instructions; of each checkout the processor's time is taken in a process of its own, in turns. That of the
process in which templates are rendered (tokenize/bounds.py) is not in it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from record import record

ROOT = Path(__file__).parents[1]
CONVERSATIONS, ROUNDS, PAIRS = 100, 7, 5
HERE = "here"


def measured(folder: str) -> float:
    """Median milliseconds of a processor for a conversation."""
    from jaxtrain.tokenize.chat import render
    from jaxtrain.tokenize.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)
    rows = json.loads((ROOT / "data/quickstart/alpaca.json").read_text(encoding="utf-8"))
    turns = [
        [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]
        for row in rows[: 3 * CONVERSATIONS]
    ]
    talks = [sum(turns[at : at + 3], []) for at in range(0, len(turns), 3)]
    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for talk in talks:
            render(talk, tokenizer)
        found.append(1000 * (time.process_time() - begun) / len(talks))
    return statistics.median(found)


def of(tree: Path, folder: str) -> float:
    environment = os.environ | {"PYTHONPATH": str(tree), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, __file__, HERE, folder]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def main(folder: str, other: Path) -> None:
    pairs = [(of(ROOT, folder), of(other, folder)) for _ in range(PAIRS)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    found = {
        "milliseconds_of_a_conversation": round(ours, 3),
        "milliseconds_there": round(theirs, 3),
        "ratio": round(statistics.median(one / other for one, other in pairs), 3),
        "load_average": os.getloadavg()[0],
    }
    record("rendering", ["jinja2", "tokenizers"], found)


if __name__ == "__main__":
    if sys.argv[1] == HERE:
        sys.stdout.write(str(measured(sys.argv[2])))
    else:
        main(sys.argv[1], Path(sys.argv[2]))
