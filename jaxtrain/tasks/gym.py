"""Tasks of reasoning-gym: a program makes problems and checks answers (Stojanovski et al. 2025,
arXiv:2505.24760).

`reasoning-gym:leg_counting` is a task's name for evaluate and align; `gym("leg_counting", max_animals=5)` in
a file of your own gives it other settings. Needs the extra `gym`.

Some of its graders evaluate the answer as Python, in this process: they are shown one that CHECKED lets
through. Those whose module evaluates anything, and which are not in it, are refused.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.task import Exercise, Row, Split, Task, nothing
from jaxtrain.tasks.worlds import calculator

APART = 1_000_000
"""Between the seeds of what is measured and of what is practised: problem n is made from seed + n."""
ASKED = "\n\nThink first, then give the answer alone between <answer> and </answer>."
_COMPARED = ("game_of_life_halting", "polynomial_multiplication")
"""Whose graders take every answer for right, or evaluate it, and whose answers have one form."""
_EVALUATES = re.compile(r"\b(eval|exec|parse_expr|sympify)\(")
_NAMES = ("binary_matrix", "n_queens", "spiral_matrix", "string_insertion")
# what these evaluate is of their own making
_OWN = ("bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic")
CHECKED: dict[str, Callable[[str], object]] = {
    **dict.fromkeys(_NAMES, re.compile(r"[\w\s-]*").fullmatch),
    **dict.fromkeys(("countdown", "puzzle24"), calculator),
    **dict.fromkeys(_OWN, str),
}
"""By dataset: what is empty, or raises, for an answer that its grader is not shown; it is worth nothing."""


def gym(name: str, *, measured: int = 200, practised: int = 2_000, seed: int = 0, **settings: Any) -> Task:
    """A dataset of reasoning-gym as a task; settings: its own.

    Errors: UserError where there is none of that name, or it refuses the settings.
    """
    import reasoning_gym  # pyrefly: ignore[missing-import]
    from reasoning_gym.dataset import ProceduralDataset  # pyrefly: ignore[missing-import]
    from reasoning_gym.factory import DATASETS  # pyrefly: ignore[missing-import]

    kind = DATASETS[name][0] if name in DATASETS else ProceduralDataset
    has_own = kind.score_answer is not ProceduralDataset.score_answer and name not in _COMPARED
    if has_own and name not in CHECKED and _EVALUATES.search(inspect.getsource(sys.modules[kind.__module__])):
        raise UserError(f"reasoning-gym:{name} runs what an answer says; name another, such as leg_counting")

    def made(split: Split) -> Any:
        size, first = {"heldout": (measured, seed), "practice": (practised, seed + APART)}[split]
        return reasoning_gym.create_dataset(name, size=size, seed=first, **settings)

    try:
        grader = made("heldout")
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"reasoning-gym:{name}: {error}") from error

    grade = grader.score_answer if has_own else partial(ProceduralDataset.score_answer, grader)

    def rows(split: Split) -> Iterator[Row]:
        # small datasets repeat themselves: what is measured is not practised
        measured = {row["question"] for row in grader} if split == "practice" else ()
        yield from (row for row in made(split) if row["question"] not in measured)

    def score(row: Row, said: str) -> float:
        answer = said.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        try:
            worth = grade(answer, row) if CHECKED.get(name, str)(answer) else 0
        except Exception as error:  # whatever a grader raises at an answer, it could not read it
            worth = nothing(f"reasoning-gym:{name}", type(error).__name__)
        return min(1.0, max(0.0, float(worth)))

    def parse(row: Row) -> Exercise:
        return Exercise(prompt=row["question"] + ASKED, graders={"score": partial(score, row)}, chat=True)

    return Task(name=name, version=1, metric="score", make=rows, parse=parse)
