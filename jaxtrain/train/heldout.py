"""What the held-out numbers say: which evaluation was best, whether the run overfits, when to stop early."""

import math
from typing import Any

from jaxtrain.runtime.progress import say

RISES = 3
"""Evaluations in a row above the best, while the training loss fell, that are called overfitting."""


class Heldout:
    """Follows one held-out number, lower is better, beside the mean training loss between evaluations.

    watch: its name among an evaluation's numbers; None: nothing is followed.
    lines: metrics.jsonl so far, so that a restarted run knows what the killed one knew.
    """

    def __init__(self, watch: str | None, lines: list[dict[str, Any]]):
        self.watch = watch
        self.restart(lines)

    def restart(self, lines: list[dict[str, Any]]) -> None:
        self.best, self.best_step, self.since_best = math.inf, 0, 0
        self._train_at_best = math.inf
        self._sum, self._count = 0.0, 0
        for line in lines:
            if line.get("kind") == "heldout":
                self._follow(line["step"], line)
            elif "kind" not in line:
                self.trained(line)

    def trained(self, line: dict[str, Any]) -> None:
        """A step's line; a refused one does not count."""
        if line["accepted"] and line["loss"] is not None:
            self._sum += line["loss"]
            self._count += 1

    def evaluated(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """The line of an evaluation: its numbers and `train_loss`, the mean since the one before, in nats."""
        line = {"kind": "heldout", **values}
        if self._count:
            line["train_loss"] = self._sum / self._count
        self._follow(step, line)
        if self.since_best == RISES and line.get("train_loss", math.inf) < self._train_at_best:
            say(
                f"overfitting: held-out {self.watch} rose from {self.best:.4g} after step {self.best_step} "
                f"to {values[self.watch]:.4g}, while the training loss fell"
            )
        return line

    def _follow(self, step: int, line: dict[str, Any]) -> None:
        train_loss = line.get("train_loss", math.inf)
        self._sum, self._count = 0.0, 0
        if self.watch is None:
            return
        if line[self.watch] is not None and line[self.watch] < self.best:
            self.best, self.best_step, self.since_best = line[self.watch], step, 0
            self._train_at_best = train_loss
        else:
            self.since_best += 1
