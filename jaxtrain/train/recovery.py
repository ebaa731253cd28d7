"""What a run does about refused steps and wrong bits: tell, keep the batch, go back and leave batches out."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say
from jaxtrain.train.context import Run
from jaxtrain.train.guard import Limits, new_guard
from jaxtrain.train.replay import Replay, SilentCorruption, Take
from jaxtrain.train.state import MOST_ROLLBACKS, TrainState, batch_index

MOST_INCIDENTS = 64
"""Batches kept of a run; each is as large as a batch."""


class Recovery:
    """Watches the steps of a run; `back` says that it has to go back to its newest checkpoint.

    state: where the run begins. restart: the state of the newest checkpoint, or of step 0.
    records: what the batch of an index was made of, kept beside a batch that was refused.
    """

    def __init__(
        self,
        run: Run,
        state: TrainState,
        restart: Callable[[], TrainState],
        records: Callable[[int], Any] | None,
    ):
        self.run, self._restart = run, restart
        self._rollbacks_R3 = np.array(state.rollbacks_R3)
        self.back = ""
        """Why; empty: it has not to."""
        self._without: tuple[int, int] | None = None
        """The first batch that is left out then, and that behind the last; None: the same batches again."""
        self.refused = 0
        """Steps refused in a row, as last read."""
        self._refused_from = 0
        self._recent: dict[int, tuple[int, dict[str, np.ndarray], Limits]] = {}
        self._times: Counter[int] = Counter()  # rollbacks by the step gone back to
        self._records = records
        self._replay = Replay(run.config.safety.replay_every, verified=run.checkpoints.latest or 0)

    def step(
        self, step: int, index: int, state: TrainState, take: Take, batch: dict[str, np.ndarray]
    ) -> tuple[TrainState, dict[str, Any]]:
        """Take a step on the batch of `index`, checked for silent corruption where that is due."""
        try:
            state, metrics = self._replay.step(step, state, take)
        except SilentCorruption as error:
            verified = self._replay.verified
            if self.run.config.safety.on_corruption == "stop" or self._times[-verified]:
                raise
            self._times[-verified] += 1  # a second one from the same state is not gone back for
            self.run.checkpoints.discard_after(verified)
            self.back, self._without = str(error), None
            return state, {}
        self._recent[step] = index, batch, metrics.pop("limits")
        return state, metrics

    def read(self, line: dict[str, float] | None) -> int:
        """Look at a step's numbers, one step late; tokens of its batch, padding included."""
        if line is None:
            return 0
        step = int(line["step"])
        index, batch, held = self._recent.pop(step)
        if not line["accepted"]:
            self._refuse(step, index, batch, line, held)
        self.refused = int(line["refused_in_a_row"])
        return batch["tokens"].size * jax.process_count()

    def _refuse(self, step: int, index: int, batch: Any, line: dict[str, float], held: Limits) -> None:
        self.run.goodput.lose(line["seconds"])
        if not self.refused:
            self._refused_from = index
        kept = keep(self.run.folder / "incidents", index, batch, line, held, self._records)
        say(
            f"step {step} refused: loss {line['loss']:.4g}, gradient norm {line['grad_norm']:.4g}; "
            "weights unchanged" + (f"; its batch is in {kept}" if kept else "")
        )
        count = int(line["refused_in_a_row"])
        if count >= self.run.config.safety.rollback_after:
            self.back = f"{count} steps refused in a row up to step {step}"
            self._without = self._refused_from, index + 1

    def go_back(self) -> TrainState:
        """The state to go on from: of the newest checkpoint, without the batches that were refused."""
        run, reason = self.run, self.back
        run.watchdog.phase("start")
        state = self._restart()
        step = int(state.step)
        if self._without is not None:
            self._leave_out(step, *self._without)
        placed = jax.device_put(self._rollbacks_R3, state.rollbacks_R3.sharding)
        state = dataclasses.replace(state, rollbacks_R3=placed)
        self._recent.clear()
        self._replay.forget(step)
        run.goodput.lose(run.log.rewind(step, but="rollback"))
        run.told.clear()
        self.back, self.refused = "", 0
        total, index = int(self._rollbacks_R3[:, 1].sum()), batch_index(step, self._rollbacks_R3)
        line = {"kind": "rollback", "reason": reason, "left_out": total}
        run.log.write(step + 1, line)  # told with the step that follows: a restart at this one cuts it
        say(f"{reason}: back to step {step}, next batch {index}, {total} batches left out so far")
        return state

    def _leave_out(self, step: int, first: int, stop: int) -> None:
        """Read these batches no more; the second time from this step, accept the level behind them."""
        self._times[step] += 1
        times = self._times[step]
        free = np.flatnonzero(self._rollbacks_R3[:, 1] == 0)
        if times > 2 or not len(free):
            raise UserError(
                f"steps after {step} are refused however often the run goes back (at most 2 times from one "
                f"checkpoint, {MOST_ROLLBACKS} in all); lower train.optimizer.lr, which the same run goes on "
                f"with, or look at the batches: `jaxtrain inspect {self.run.folder / 'incidents'}`"
            )
        if times == 2:
            say(f"second rollback to step {step}: whatever loss comes next is accepted as the new level")
        self._rollbacks_R3[free[0]] = first, stop - first, times == 2


def with_new_level(state: TrainState) -> TrainState:
    """The state whose guard knows nothing yet: other data begin."""
    like = jax.tree.map(lambda x: x.sharding, state.guard)
    return dataclasses.replace(state, guard=jax.device_put(new_guard(), like))


def keep(
    incidents: Path,
    index: int,
    batch: dict[str, np.ndarray],
    line: dict[str, float],
    held: Limits,
    records: Callable[[int], Any] | None = None,
) -> Path | None:
    """Write `batch-<index>/`, which is returned; None where there are `MOST_INCIDENTS` already.

    It has `incident.json`, and `process-<p>.npz`, the rows of each process.
    line: of the refused step in metrics.jsonl. records: what the batch of an index was made of, any JSON
    value; kept where the feed can say it.
    """
    folder = incidents / f"batch-{index:08d}"
    if not folder.exists() and len(list(incidents.glob("*"))) >= MOST_INCIDENTS:
        say(f"batch {index} is not kept: {incidents} has {MOST_INCIDENTS} already")
        return None
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"process-{jax.process_index()}.npz", **batch)
    if jax.process_index() == 0:
        held = jax.device_get(held)
        columns = {"window_mean": held.mean, "window_sigma": held.sigma, "limit": held.limit}
        seen = {
            name: {"value": _number(line[name])}
            | {column: _number(values[i]) for column, values in columns.items()}
            for i, name in enumerate(("loss", "grad_norm"))
        }
        told = {
            "step": int(line["step"]),
            "batch": index,
            **seen,
            "targets": _number(line["targets"]),
            "refused_in_a_row": int(line["refused_in_a_row"]),
            "records": records(index) if records else None,
        }
        (folder / "incident.json").write_text(json.dumps(told, indent=2, allow_nan=False) + "\n")
    return folder


def _number(value: Any) -> float | str:
    """JSON has no word for nan and infinity."""
    return float(value) if np.isfinite(value) else str(float(value))
