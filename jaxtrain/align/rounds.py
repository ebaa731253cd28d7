"""Rounds of sampling: where the batches of PPO, GRPO and distillation come from.

A round is drawn every `epochs x minibatches` steps from the weights as they are then; its rows lie in
`rollouts/` while steps are taken on them. A round is a function of the weights, of its number and of the
lines of the rounds before, so a run that was killed goes on as if nothing had been, also within a round.
"""

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain.align.monitor import Line, Monitor
from jaxtrain.align.rollout import Rows, Sampler
from jaxtrain.feed.shuffle import key
from jaxtrain.runtime import distributed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.metrics import show
from jaxtrain.runtime.progress import say
from jaxtrain.train.context import Run
from jaxtrain.train.learner import Learner
from jaxtrain.train.loop import Evaluate, Feed, Trained, train
from jaxtrain.train.step import Loss

Draw = Callable[[Any, int, list[Line]], tuple[Rows, Line]]
"""(policy, number of the round, lines of the rounds before) to (all rows to learn from, numbers to log)."""


class Rounds:
    """Draws rounds and deals them out in minibatches.

    draw: of whole policies. monitor: what it finds goes to metrics.jsonl, and it may end the run.
    exact: reads every minibatch under the weights that learn from it; its rows then have `logprobs`, those
    of the loss.
    A round's numbers are a line of kind `round` in metrics.jsonl, with the first step that learns from it.
    """

    def __init__(
        self,
        run: Run,
        learner: Learner,
        draw: Draw,
        monitor: Monitor,
        epochs: int = 1,
        minibatches: int = 1,
        exact: Sampler | None = None,
    ):
        self.run, self.monitor = run, monitor
        self._learner, self._draw, self._exact = learner, draw, exact
        self._minibatches = minibatches
        self.steps = epochs * minibatches
        """Optimizer steps of a round."""
        self._folder = run.folder / "rollouts"
        self._rows: Rows = {}
        self._begin()

    def feed(self) -> Feed:
        return Feed(self._read, samples=True)

    def train(self, loss: Loss, evaluate: Evaluate, watch: str, flops_per_token: float) -> Trained:
        """Learn from rounds to the last step (`train.loop.train`); the rows of the last ones go then."""
        of_run = {"watch": watch, "flops_per_token": flops_per_token}
        trained = train(self.run, self._learner, loss, self.feed(), evaluate, **of_run)
        if self._exact:
            spent, whole = self._exact.seconds, sum(self.run.goodput.seconds.values())
            say(f"exact: answers were read by the program that drew them, {spent:.1f} s of {whole:.1f} s")
        distributed.wait("rollouts read")
        if self.run.first and self._folder.exists():
            shutil.rmtree(self._folder)
        return trained

    def _begin(self) -> None:
        """The lines are those of metrics.jsonl, which ends at the checkpoint that the run goes on from."""
        self._kept = self.run.log.kept
        self.lines: list[Line] = [line for line in self._kept if line.get("kind") == "round"]

    def _read(self, start: int, stop: int) -> Iterator[Rows]:
        if self._kept is not self.run.log.kept:  # the run has gone back
            self._begin()
        there = -1
        for index in range(start, stop):
            number, part = divmod(index, self.steps)
            if number != there:
                stored = self._path(number)
                if part and stored.is_file():
                    self._rows = dict(np.load(stored))
                elif self._play(number, part > 0):
                    return
                there = number
            batch = self._minibatch(number, part)
            if part and self._exact:  # the first one's weights are still those that it was read with
                policy = self._learner.whole(self.run.learned)
                batch["logprobs"] = self._exact.read(policy.transformer, batch)
            yield meshes.own_rows(batch)

    def _play(self, number: int, is_late: bool) -> bool:
        """Draw a round; True where its monitor ends the run before that is learned from."""
        if is_late:
            say(f"the rows of round {number + 1} are not in {self._folder}: drawn again")
        self.lines = [line for line in self.lines if line["round"] <= number]
        policy = self._learner.whole(self.run.learned)
        rows, values = self._draw(policy, number, self.lines)
        line = {"kind": "round", "round": number + 1} | {name: float(value) for name, value in values.items()}
        self.lines.append(line)
        self.run.told.append(line)
        if self.run.first and (number == 0 or (number + 1) % 5 == 0):
            shown = {name: value for name, value in line.items() if name not in ("kind", "round")}
            show(number + 1, -(-self.run.config.steps // self.steps), shown, "round")
        flags = self.monitor.look(self.lines)
        for flag in flags:
            self.run.told.append({"kind": "flag", **dataclasses.asdict(flag)})
            say(f"round {number + 1}: {flag.meaning}")
        if stops := [flag.rule for flag in flags if flag.rule in self.monitor.config.stop_at]:
            self.run.told.append({"kind": "stop", "rules": stops})
            say(f"stopped before learning from round {number + 1}: monitor.stop_at has {', '.join(stops)}")
            return True
        self._rows = rows
        self._store(number, rows)
        return False

    def _store(self, number: int, rows: Rows) -> None:
        """Keep the rows until no checkpoint that the run may go back to lies within their round."""
        if self.run.first:
            self._folder.mkdir(exist_ok=True)
            temporary = self._path(number).with_suffix(".tmp.npz")
            np.savez(temporary, allow_pickle=False, **rows)
            temporary.replace(self._path(number))
            oldest = min([number, *(step // self.steps for step in self.run.checkpoints.newest(2))])
            for path in self._folder.glob("round-*.npz"):
                if int(path.stem.split("-")[1].split(".")[0]) < oldest:
                    path.unlink()
        distributed.wait(f"round {number} stored")

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:06d}.npz"

    def _minibatch(self, number: int, part: int) -> Rows:
        """Each pass over the rows in a new order, in equal parts."""
        epoch, minibatch = divmod(part, self._minibatches)
        count = len(next(iter(self._rows.values())))
        rng = np.random.default_rng(key(self.run.config.seed, "minibatches", number, epoch))
        chosen = np.split(rng.permutation(count), self._minibatches)[minibatch]
        return {name: values[chosen] for name, values in self._rows.items()}
