"""The loop that pretrain, finetune and the reward model share: plain, and in one place.

A run may be killed, starved, poisoned or moved to other devices at any moment: it goes on from the newest
checkpoint that verifies, with the batches that it would have seen, and `metrics.jsonl` has each step once.
"""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints, KeepConfig
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.distributed import Wishes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.goodput import Goodput
from jaxtrain.runtime.metrics import MetricsLog, show
from jaxtrain.runtime.profile import Profile
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.signals import Stopped, StopSignals
from jaxtrain.runtime.trackers import Tracker, open_trackers
from jaxtrain.runtime.watchdog import Watchdog, WatchdogConfig
from jaxtrain.train.guard import Limits
from jaxtrain.train.heldout import Heldout
from jaxtrain.train.incident import Incidents
from jaxtrain.train.optimizer import averaged
from jaxtrain.train.pace import Pace
from jaxtrain.train.replay import Replay, SilentCorruption
from jaxtrain.train.state import TrainState, new_state
from jaxtrain.train.step import CompiledStep, Loss, explained, make_step

Batch = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class SafetyConfig:
    """What a run does against faults."""

    rollback_after: int = 20
    """Refused steps in a row after which the run goes back to its last checkpoint and past their batches."""
    replay_every: int = 0
    """Steps between checks for silent corruption, each about two steps long; 0: never."""
    on_corruption: Literal["stop", "roll back"] = "stop"
    """End the run, or go on from the last checkpoint that a check has passed."""
    checkpoint_minutes: float = 0.0
    """A checkpoint also when the last is so many minutes old; 0: by steps alone."""
    keep: KeepConfig = field(default_factory=KeepConfig)
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the loop does what."""

    steps: int
    """Optimizer steps of the whole run."""
    evaluate_every: int
    """Steps between evaluations (and after the last step)."""
    checkpoint_every: int
    """Steps between checkpoints (and after the last step)."""
    early_stop: int = 0
    """Evaluations in a row with none better held-out, after which the best one is the result; 0: never."""
    log_every: int = 10
    """Steps between console lines and lines of speed; metrics.jsonl has every step."""


def train(
    folder: Path,
    schedule: Schedule,
    *,
    init: Callable[[], TrainState],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batches: Callable[[int, int], Iterator[Batch]],
    evaluate: Callable[[Any, int], dict[str, Any]],
    microbatches: int = 1,
    ramps: bool = False,
    pretrained: Callable[[], Any] | None = None,
    records: Callable[[int], Any] | None = None,
    watch: str | None = None,
    learning_rate: optax.Schedule | None = None,
    flops_per_token: float | None = None,
    safety: SafetyConfig | None = None,
    frozen: Any = None,
    profile: int = 0,
    trackers: Sequence[Tracker] = ("tensorboard",),
) -> TrainState:
    """Train to the last step, from the newest checkpoint in `folder` where one stands.

    init: the state of step 0; of `pretrained` weights its shapes alone are used.
    pretrained: loads the model of an earlier stage.
    ramps: a batch may end in micro-batches of padding alone, which are not computed.
    batches(start, stop): this process's rows of the batches of those indices, a pure function of the index.
    evaluate(model, step): numbers for metrics.jsonl, written with `"kind": "heldout"`.
    records: what the batch of an index was made of, kept beside a batch that was refused.
    watch: the name of the number among them of which the lowest counts as best.
    frozen: weights that the loss reads and that do not learn; in no checkpoint.
    learning_rate: the optimizer's, for the log. flops_per_token: for the log's FLOP/s and MFU.
    profile: steps that are traced; `folder/profile` gets the trace and a table of where their time went.
    trackers: where else the numbers are shown.
    Errors: UserError for what the user can mend, Stopped (exit status 75) after a signal.
    """
    keep_compiled()
    safety = safety or SafetyConfig()
    with ExitStack() as ends:
        watchdog = ends.enter_context(Watchdog(safety.watchdog, folder))
        goodput = Goodput()
        checkpoints = ends.enter_context(closing(Checkpoints(folder / "checkpoint", safety.keep)))
        begin = partial(_begin, checkpoints, init, optimizer, pretrained)
        state = begin()
        mirrors = open_trackers(trackers, folder)
        log = ends.enter_context(closing(MetricsLog(folder / "metrics.jsonl", int(state.step), mirrors)))
        goodput.carry(log.kept, log.lost_seconds)
        run = _Run(
            state=state,
            begin=begin,
            schedule=schedule,
            safety=safety,
            take=CompiledStep(
                make_step(loss, optimizer, microbatches, learning_rate=learning_rate, ramps=ramps),
                microbatches,
                frozen,
                Profile(folder, profile),
            ),
            batches=batches,
            evaluate=evaluate,
            checkpoints=checkpoints,
            log=log,
            incidents=Incidents(folder, records),
            heldout=Heldout(watch, log.kept),
            pace=Pace(goodput, flops_per_token),
            watchdog=watchdog,
            signals=ends.enter_context(StopSignals()),
        )
        return run.to_the_end()


def _begin(
    checkpoints: Checkpoints,
    init: Callable[[], TrainState],
    optimizer: optax.GradientTransformation,
    pretrained: Callable[[], Any] | None,
) -> TrainState:
    """The state to go on from: the newest checkpoint, else `pretrained()` at step 0, else `init()`."""
    if checkpoints.latest is not None:
        abstract = meshes.abstract(init, jax.sharding.get_mesh())
        step, model, training = checkpoints.restore(abstract.model, dataclasses.replace(abstract, model=None))
        say(f"resuming after step {step}")
        return dataclasses.replace(training, model=model)
    if pretrained is None:
        return jax.jit(init)()
    return new_state(pretrained(), optimizer)


class _GoBack(Exception):
    """The run goes on from its newest checkpoint. past: with the batch of this index; None: with the same."""

    def __init__(self, reason: str, past: int | None):
        super().__init__(reason)
        self.reason, self.past = reason, past


@dataclass(kw_only=True)
class _Run:
    """One process's part of a run, and where it is."""

    state: TrainState
    begin: Callable[[], TrainState]
    schedule: Schedule
    safety: SafetyConfig
    take: CompiledStep
    batches: Callable[[int, int], Iterator[Batch]]
    evaluate: Callable[[Any, int], dict[str, Any]]
    checkpoints: Checkpoints
    log: MetricsLog
    incidents: Incidents
    heldout: Heldout
    pace: Pace
    watchdog: Watchdog
    signals: StopSignals

    def __post_init__(self) -> None:
        self.step, self.passed = int(self.state.step), int(self.state.passed)
        self.replay = Replay(self.safety.replay_every, verified=self.step)
        self.wishes = Wishes()
        self.goodput = self.pace.goodput
        self.recent: dict[int, tuple[int, Batch, Limits]] = {}  # the steps whose numbers are not read yet
        self.rollbacks: Counter[int] = Counter()  # by the step gone back to
        self.refused = 0  # in a row, as last read
        self.save_due, self.saved_at = False, time.monotonic()

    def to_the_end(self) -> TrainState:
        """Steps until the last one, or until the held-out number has been rising for long."""
        last = self.schedule.steps
        if self.step == last:  # killed behind its last checkpoint: its caller has yet to see the last numbers
            self.evaluate(self._result(), last)
        while self.step < last:
            try:
                with explained(self.take):
                    if self._go_on():
                        break
            except _GoBack as back:
                self._roll_back(back.reason, back.past)
        return dataclasses.replace(self.state, model=self._result())

    def _go_on(self) -> bool:
        """The loop. True: stopped early."""
        mesh, schedule = jax.sharding.get_mesh(), self.schedule
        for index, batch in self._timed(range(self.step + self.passed, schedule.steps + self.passed)):
            self.step += 1
            held = meshes.put_batch(batch, mesh)
            self.state, metrics = self._replayed(lambda state, held=held: self.take(state, held))
            self.recent[self.step] = index, batch, metrics.pop("limits")
            self._read(self.log.step(self.step, metrics))
            stop, is_old = self.wishes.exchange(self.signals.asked is not None, self._is_old())
            self.checkpoints.check()
            # once in a while: held-out numbers
            value, is_last = None, self.step == schedule.steps
            if self.step % schedule.evaluate_every == 0 or is_last:
                value = self._evaluate()
            # once in a while: a checkpoint, written while the next steps run; the log reaches up to it
            is_best = value is not None and self.heldout.best_step == self.step and self.safety.keep.best
            self.save_due |= (
                self.step % schedule.checkpoint_every == 0 or is_last or is_old or is_best or stop
            )
            if self.save_due:
                self._save(value)
            if stop:
                self._stop()
            if self._is_early_stop():
                return True
            self.watchdog.phase("step")
        return False

    def _result(self) -> Any:
        """The weights to judge: the running mean where the optimizer keeps one, else the last."""
        mean = averaged(self.state.optimizer)
        return self.state.model if mean is None else mean

    def _timed(self, indices: range) -> Iterator[tuple[int, Batch]]:
        """Batches with their indices; waiting for them is told apart from the steps."""
        ahead = self.batches(indices.start, indices.stop)
        for index in indices:
            if index > indices.start:  # the first waits for the feed to start
                self.goodput.turn("data")
            batch = next(ahead)
            if index > indices.start:
                self.goodput.turn("steps")
            yield index, batch

    def _replayed(self, take: Callable[[TrainState], Any]) -> Any:
        """A step, checked for silent corruption where that is due."""
        try:
            return self.replay.step(self.step, self.state, take)
        except SilentCorruption as error:
            if self.safety.on_corruption == "stop" or self.rollbacks[-self.replay.verified]:
                raise
            self.rollbacks[-self.replay.verified] += (
                1  # a second one from the same state is not gone back for
            )
            self.checkpoints.discard_after(self.replay.verified)
            raise _GoBack(str(error), past=None) from error

    def _read(self, line: dict[str, float] | None) -> None:
        """Look at a step's numbers, one step late; _GoBack where too many were refused."""
        if line is None:
            return
        step = int(line["step"])
        index, batch, held = self.recent.pop(step)
        self.refused = int(line["refused_in_a_row"])
        self.heldout.trained(line)
        computed = line.get("microbatches", self.take.microbatches) / self.take.microbatches
        self.pace.step(round(computed * batch["tokens"].size * jax.process_count()), line["seconds"])
        if not line["accepted"]:
            self.goodput.lose(line["seconds"])
            kept = self.incidents.save(step, index, batch, line, held)
            say(
                f"step {step} refused: loss {line['loss']:.4g}, gradient norm {line['grad_norm']:.4g}; "
                "weights unchanged" + (f"; its batch is in {kept}" if kept else "")
            )
            if self.refused >= self.safety.rollback_after:
                raise _GoBack(f"{self.refused} steps refused in a row up to step {step}", past=index + 1)
        if step % self.schedule.log_every == 0:
            speed = self.pace.line()
            self.log.write(step, speed)
            shown = {
                "loss": line["loss"],
                "grad_norm": line["grad_norm"],
                "targets/s": line["targets"] / line["seconds"],
            }
            if speed.get("mfu") is not None:
                shown["mfu"] = speed["mfu"]
            if jax.process_index() == 0:
                show(step, self.schedule.steps, shown)

    def _evaluate(self) -> float | None:
        """Held-out numbers of this step; the one that is watched."""
        self._read(self.log.flush())
        self.watchdog.phase("save")
        self.goodput.turn("evaluate")
        values = self.evaluate(self._result(), self.step)
        self.log.write(self.step, self.heldout.evaluated(self.step, values))
        shown = {name: value for name, value in values.items() if isinstance(value, float)}
        if jax.process_index() == 0:
            show(self.step, self.schedule.steps, shown, "held-out")
        self.log.pause()
        self.goodput.turn("steps")
        return None if self.heldout.watch is None else values[self.heldout.watch]

    def _save(self, value: float | None) -> None:
        """A checkpoint, unless steps are being refused: what a rollback goes to is from before that."""
        self._read(self.log.flush())
        if self.refused and self.step < self.schedule.steps:
            return
        self.watchdog.phase("save")
        self.goodput.turn("save")
        model = self._result() if self.step == self.schedule.steps else self.state.model
        self.checkpoints.save(self.step, model, dataclasses.replace(self.state, model=None), value)
        self.save_due, self.saved_at = False, time.monotonic()
        self.log.pause()
        self.goodput.turn("steps")

    def _is_old(self) -> bool:
        """Whether this process thinks that a checkpoint is due by the clock."""
        minutes = self.safety.checkpoint_minutes
        return minutes > 0 and time.monotonic() - self.saved_at > 60 * minutes

    def _stop(self) -> None:
        self.checkpoints.wait()
        at = f"saved after step {self.step}" if not self.save_due else "the last checkpoint stands"
        say(f"{self.signals.asked or 'a signal to another process'}: {at}; the same command goes on")
        raise Stopped

    def _is_early_stop(self) -> bool:
        if not self.schedule.early_stop or self.heldout.since_best < self.schedule.early_stop:
            return False
        best = self.heldout.best_step
        say(
            f"stopped early after step {self.step}: no better {self.heldout.watch} in "
            f"{self.heldout.since_best} evaluations; the result is step {best}"
        )
        self.checkpoints.discard_after(best)
        self.state = self.begin()
        return True

    def _roll_back(self, reason: str, past: int | None) -> None:
        self.watchdog.phase("start")
        self.state = self.begin()
        self.step, self.passed = int(self.state.step), int(self.state.passed)
        if past is not None:
            self._pass_over(past)
        self.recent.clear()
        self.replay.forget(self.step)
        self.goodput.lose(self.log.rewind(self.step, but="rollback"))
        self.heldout.restart(self.log.kept)
        self.refused, self.save_due = 0, False
        line = {"kind": "rollback", "reason": reason, "passed": self.passed}
        self.log.write(self.step + 1, line)  # told with the step that follows: a restart at this one cuts it
        say(f"{reason}: back to step {self.step}, next batch {self.step + self.passed}")

    def _pass_over(self, past: int) -> None:
        """Go on with batch `past`; the second time from this step, accept the new level."""
        self.rollbacks[self.step] += 1
        times = self.rollbacks[self.step]
        if times > 2:
            raise UserError(
                f"steps after {self.step} are refused however often the run goes back; lower the learning "
                f"rate, or look at the batches: `jaxtrain inspect {self.incidents.folder}`"
            )
        self.passed = past - self.step
        guard = self.state.guard
        if times == 2:
            say(f"second rollback to step {self.step}: whatever loss comes next is accepted as the new level")
            guard = jax.tree.map(jnp.zeros_like, guard)
        self.state = dataclasses.replace(
            self.state, guard=guard, passed=jnp.full_like(self.state.passed, self.passed)
        )
