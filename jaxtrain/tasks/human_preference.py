"""Pairs of answers of which a person preferred one: does a score order them as the person did?

The scorer may be a reward model, a policy's log-likelihood, or the length of the answer as a baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxtrain.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One comparison by a person."""

    prompt: str
    chosen: str
    rejected: str
    chance: float = 0.5

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.prompt, self.chosen, self.rejected)):
            raise TypeError("prompt, chosen and rejected are text")
        if self.chosen == self.rejected:
            raise ValueError("chosen and rejected are the same text")


def parse(row: dict[str, Any]) -> Pair:
    """`prompt`, `chosen` and `rejected`."""
    return Pair(prompt=row["prompt"], chosen=row["chosen"], rejected=row["rejected"])


def grade(chosen: Sequence[float] | np.ndarray, rejected: Sequence[float] | np.ndarray) -> np.ndarray:
    """1 where the chosen answer has the higher score, 0 where the lower, ½ where equal; float64 [pairs]."""
    chosen, rejected = np.asarray(chosen, np.float64), np.asarray(rejected, np.float64)
    if not (np.isfinite(chosen).all() and np.isfinite(rejected).all()):
        raise ValueError("scores must be finite; a scorer that gives nan or inf is broken")
    return (np.sign(chosen - rejected) + 1) / 2


task = Task(
    name="human_preference", version=1, metric="preference_accuracy", path="comparisons.jsonl.gz", parse=parse
)
