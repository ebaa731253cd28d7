"""HumanEval: a Python function from its signature and docstring (Chen et al. 2021, arXiv:2107.03374).

The model's code runs against the item's own tests in `sandbox.py`, never in this process. One sample, greedy:
pass@1.
"""

from functools import partial
from typing import Any

from jaxtrain.tasks import interface, sandbox
from jaxtrain.tasks.task import Exercise, Task

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def parse(row: dict[str, Any]) -> Exercise:
    """`prompt`, `test` (defines `check`) and `entry_point`; ValueError where tests need more than values."""
    prompt, name = row["prompt"], row["entry_point"]
    tests = f"{row['test']}\ncheck({name})\n"
    names = interface.names(tests, prompt, name)
    return Exercise(prompt=prompt, grade=partial(grade, prompt, tests, names), stops=STOPS, tokens=512)


def grade(prompt: str, tests: str, names: tuple[str, ...], text: str) -> dict[str, float]:
    """1 where the function passes its tests within the limits of the sandbox.

    The tests may call functions that the prompt defines: their own, not the program's.
    """
    passed = sandbox.run(prompt + text, tests=tests, prompt=prompt, names=names).passed
    return {"pass_at_1": float(passed)}


task = Task(
    name="humaneval",
    version=1,
    metric="pass_at_1",
    path="benchmarks/humaneval.jsonl.gz",
    parse=parse,
    hub=("openai/openai_humaneval", None, "test"),
)
