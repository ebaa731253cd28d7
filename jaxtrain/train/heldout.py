"""The held-out loss, and what it says: which evaluation was best, whether the run overfits, when to stop."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.progress import say
from jaxtrain.train.losses import token_loss

RISES = 3
"""Evaluations in a row worse than the best, while the training loss fell, that are called overfitting."""


def summed_nats(model: Any, batches: Iterable[dict[str, np.ndarray]]) -> tuple[float, float]:
    """Cross-entropy in nats summed over all targets of `batches`, and how many they are."""
    mesh = jax.sharding.get_mesh()
    sums = [_summed(model, meshes.put_batch(batch, mesh)) for batch in batches]
    nats, targets = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    return float(nats), float(targets)


_summed = jax.jit(partial(token_loss, balance=False))


def bits_per_byte(nats: float, utf8_bytes: int) -> float:
    """Nats of all tokens of a text over its bytes, in bits: comparable between tokenizers."""
    return nats / math.log(2) / utf8_bytes


class Heldout:
    """Follows one held-out number beside the mean training loss between evaluations.

    watch: its name among an evaluation's numbers, lower is better; `-name`: higher is better; empty: nothing
    is followed.
    lines: metrics.jsonl so far, so that a restarted run knows what the killed one knew.
    """

    def __init__(self, watch: str, lines: list[dict[str, Any]]):
        self.name = watch.removeprefix("-")
        self._sign = -1.0 if watch.startswith("-") else 1.0
        self.restart(lines)

    def restart(self, lines: list[dict[str, Any]]) -> None:
        self._best, self.best_step, self.since_best = math.inf, 0, 0
        self._train_at_best = math.inf
        self._sum, self._count = 0.0, 0
        self._evaluations: dict[int, dict[str, Any]] = {}
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
        """The line of an evaluation: its numbers and `train_loss`, the mean since the one before."""
        line = {"kind": "heldout", **values}
        if self._count:
            line["train_loss"] = self._sum / self._count
        self._follow(step, line)
        if self.since_best == RISES and line.get("train_loss", math.inf) < self._train_at_best:
            say(
                f"overfitting: held-out {self.name} went from {self._sign * self._best:.4g} after step "
                f"{self.best_step} to {values[self.name]:.4g}, while the training loss fell"
            )
        return line

    def watched(self, values: dict[str, Any]) -> float | None:
        """The number that is followed, smaller is better; None where there is none, or it is not finite."""
        value = values.get(self.name)
        return None if value is None or not math.isfinite(value) else self._sign * value

    def numbers(self, step: int) -> dict[str, Any]:
        """Of the evaluation after that step; those that are not finite are None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self._evaluations.get(step, {}).items()
            if name not in ("step", "kind", "train_loss")
        }

    def _follow(self, step: int, line: dict[str, Any]) -> None:
        self._evaluations[step] = line
        train_loss = line.get("train_loss", math.inf)
        self._sum, self._count = 0.0, 0
        if not self.name:
            return
        value = self.watched(line)
        if value is not None and value < self._best:
            self._best, self.best_step, self.since_best = value, step, 0
            self._train_at_best = train_loss
        else:
            self.since_best += 1
