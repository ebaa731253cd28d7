"""Tasks of reasoning-gym: a program makes problems and checks answers (Stojanovski et al. 2025,
arXiv:2505.24760).

`reasoning-gym:leg_counting` is a task's name for evaluate and align; `gym("leg_counting", max_animals=5)` in
a file of your own gives it other settings. Needs the extra `gym`.

Datasets that compare an answer with the right one are taken. Those with a grader of their own are refused:
many of these graders evaluate the answer as Python, in this process.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.task import Exercise, Row, Split, Task

PREFIX = "reasoning-gym:"
APART = 1_000_000
"""Between the seeds of what is measured and of what is practised: problem n is made from seed + n."""
ASKED = "\n\nThink first, then give the answer alone between <answer> and </answer>."


def gym(name: str, *, measured: int = 200, practised: int = 2_000, seed: int = 0, **settings: Any) -> Task:
    """A dataset of reasoning-gym as a task; settings: its own.

    Errors: UserError where there is none of that name, or it refuses the settings.
    """
    import reasoning_gym  # pyrefly: ignore[missing-import]
    from reasoning_gym.dataset import ProceduralDataset  # pyrefly: ignore[missing-import]
    from reasoning_gym.factory import DATASETS  # pyrefly: ignore[missing-import]

    if name in DATASETS and DATASETS[name][0].score_answer is not ProceduralDataset.score_answer:
        raise UserError(
            f"{PREFIX}{name} grades by code of its own, which may run what an answer says; name one that "
            "compares answers, such as leg_counting, or write a task with a grader of yours"
        )

    def made(split: Split) -> Any:
        size, first = {"heldout": (measured, seed), "practice": (practised, seed + APART)}[split]
        return reasoning_gym.create_dataset(name, size=size, seed=first, **settings)

    try:
        grader = made("heldout")
    except (ValueError, TypeError, AssertionError) as error:
        raise UserError(f"{PREFIX}{name}: {error}") from error

    def rows(split: Split) -> Iterator[Row]:
        # small datasets repeat themselves: what is measured is not practised
        measured = {row["question"] for row in grader} if split == "practice" else ()
        yield from (row for row in made(split) if row["question"] not in measured)

    def score(row: Row, said: str) -> float:
        answer = said.rpartition("<answer>")[2].partition("</answer>")[0].strip()
        return min(1.0, max(0.0, float(grader.score_answer(answer, row))))

    def parse(row: Row) -> Exercise:
        return Exercise(prompt=row["question"] + ASKED, graders={"score": partial(score, row)}, chat=True)

    return Task(name=name, version=1, metric="score", make=rows, parse=parse)
