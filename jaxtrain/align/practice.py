"""Tasks as they are practised: what is asked, and what an answer is paid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from jaxtrain.decode.dialogues import Dialogue, Played, graded, opening
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.tasks.environment import Episode
from jaxtrain.tasks.task import Exercise, Task
from jaxtrain.tokenize.tokenizer import Tokenizer

Asked = tuple[Played, list[int]]
"""An item and the ids that it begins with."""


@dataclass(frozen=True)
class Practice:
    """A task, its items that fit, and the weights of its grades in the reward."""

    task: Task
    practised: list[Asked]
    heldout: list[Asked]
    left_out: int
    """Items to practise that ask more than fits."""
    names: tuple[str, ...]
    """Of its grades."""
    weights: Mapping[str, float]
    prompts: int = 0
    """Items of a round."""

    def judged(self, asked: Sequence[Asked], played: Sequence[Dialogue]) -> dict[str, np.ndarray]:
        """Grades of the dialogues by name, and their weighted sum as `paid`; float64 [items]."""
        grades = graded([item for item, _ in asked], played)
        return grades | {"paid": sum(weight * grades[name] for name, weight in self.weights.items())}


def read(
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    data: str,
    *,
    longest_prompt: int,
    measured: int,
    rewards: Mapping[str, float],
    prompts: Sequence[int],
) -> list[Practice]:
    """The tasks' items with the ids that they begin with; UserError where one is none to practise.

    rewards: weights of grades by name, in place of a task's own where it has such a grade; UserError for a
    grade that no task has. prompts: items of a round, of each task.
    """
    limits = {"longest_prompt": longest_prompt, "measured": measured, "rewards": rewards}
    found = [
        _read(task, tokenizer, data, prompts=n, **limits) for task, n in zip(tasks, prompts, strict=True)
    ]
    known = {name for one in found for name in one.names}
    if unknown := sorted(set(rewards) - known):
        raise UserError(f"rewards: no task has a grade {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return found


def _read(
    task: Task,
    tokenizer: Tokenizer,
    data: str,
    *,
    longest_prompt: int,
    measured: int,
    rewards: Mapping[str, float],
    prompts: int,
) -> Practice:
    practised, heldout = task.load(data, split="practice"), task.load(data, measured)
    first = practised[0]
    if not (isinstance(first, Episode) or (isinstance(first, Exercise) and first.chat)):
        raise UserError(
            f"task {task.name} does not ask in the chat template (Exercise(chat=True), or Episode): it can "
            "be measured and not practised"
        )
    names = list(first.graders) if isinstance(first, Exercise) else ["reward"]
    weights = {name: weight for name, weight in rewards.items() if name in names}
    weights = weights or dict(task.reward) or {task.metric: 1.0}
    if unknown := sorted({*weights, task.metric} - set(names)):
        raise UserError(f"task {task.name} has no grade {unknown[0]!r}; it has {', '.join(names)}")
    fitting = [
        [(item, ids) for item in items if len(ids := opening(item, tokenizer)) <= longest_prompt]
        for items in (practised, heldout)
    ]
    if not all(fitting):
        raise UserError(
            f"task {task.name} asks nothing of at most {longest_prompt} tokens; raise longest_prompt"
        )
    left_out = len(practised) - len(fitting[0])
    found = f"{len(fitting[0])} items to practise ({left_out} too long), {len(fitting[1])} to measure on"
    say(f"align: {task.name}: {found}")
    return Practice(task, *fitting, left_out, tuple(names), weights, prompts)


def divided(prompts: int, shares: Sequence[float]) -> list[int]:
    """Prompts of each task in a round, by largest remainders; UserError where one has none."""
    exact = prompts * np.array(shares) / sum(shares)
    found = exact.astype(int)
    found[np.argsort(found - exact, kind="stable")[: prompts - found.sum()]] += 1
    if found.min() < 1:
        raise UserError(f"{prompts} prompts a round leave a task none; raise prompts, or its share")
    return found.tolist()
