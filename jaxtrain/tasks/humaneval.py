"""HumanEval: a Python function from its signature and docstring (Chen et al. 2021, arXiv:2107.03374).

The model's code runs against the item's own tests in `sandbox.py`, never in this process. One sample, greedy:
pass@1.
"""

from functools import partial
from typing import Any

from jaxtrain.tasks import sandbox
from jaxtrain.tasks.task import Exercise, Task

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def parse(row: dict[str, Any]) -> Exercise:
    """`prompt`, `test` (defines `check`) and `entry_point`."""
    tests = f"\n{row['test']}\ncheck({row['entry_point']})\n"
    return Exercise(prompt=row["prompt"], grade=partial(grade, row["prompt"], tests), stops=STOPS, tokens=512)


def grade(prompt: str, tests: str, text: str) -> dict[str, float]:
    """1 where the function passes its tests within the limits of the sandbox."""
    return {"pass_at_1": float(sandbox.run(prompt + text + tests).passed)}


task = Task(
    name="humaneval",
    version=1,
    metric="pass_at_1",
    path="benchmarks/humaneval.jsonl.gz",
    parse=parse,
    hub=("openai/openai_humaneval", None, "test"),
)
