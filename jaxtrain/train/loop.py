"""The loop of every stage that learns: plain, and in one place.

A run may be killed, starved, poisoned or moved to other devices at any moment: it goes on from the newest
checkpoint that verifies, with the batches that it would have seen, and `metrics.jsonl` has each step once.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import jax
import numpy as np

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.metrics import show
from jaxtrain.runtime.profile import Profile
from jaxtrain.runtime.progress import say
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import TrainConfig, due
from jaxtrain.train.context import Run
from jaxtrain.train.heldout import Heldout
from jaxtrain.train.learner import Learner
from jaxtrain.train.optimizer import averaged
from jaxtrain.train.pace import Pace
from jaxtrain.train.recovery import Recovery, with_new_level
from jaxtrain.train.state import TrainState, batch_index, initializer, new_levels, new_state
from jaxtrain.train.step import CompiledStep, Loss, explained, make_step

Batch = dict[str, np.ndarray]
Evaluate = Callable[[Any, int], dict[str, Any]]
"""(whole module, step) to numbers for metrics.jsonl, written with `"kind": "heldout"`."""


@dataclass(frozen=True)
class Feed:
    """The batches of a run, and what the loop has to know of them."""

    read: Callable[[int, int], Iterator[Batch]]
    """(start, stop) to this process's rows of the batches of those indices: a function of the index, or of it
    and the weights (`Run.learned`). It may end early: then the run ends."""
    records: Callable[[int], Any] | None = None
    """What the batch of an index was made of, kept beside a batch that was refused."""
    phases: frozenset[int] = frozenset()
    """Batches at which other data begin, with a loss of another level."""
    ramps: bool = False
    """A batch may end in micro-batches of padding alone, which are not computed."""
    samples: bool = False
    """Reading is sampling answers: it takes as long as steps do, and the loss has no scale."""


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    model: Any
    """The whole module: of the last step, or of the best one."""
    state: TrainState
    """What it was trained with."""
    heldout: dict[str, Any]
    """The numbers of the evaluation of that step."""

    @property
    def step(self) -> int:
        return int(self.state.step)


def train(
    run: Run,
    learner: Learner,
    loss: Loss,
    feed: Feed,
    evaluate: Evaluate,
    *,
    watch: str = "",
    flops_per_token: float | None = None,
) -> Trained:
    """Train to the last step, from the newest checkpoint of the run where one stands.

    watch: the name of the held-out number of which the lowest counts as best; `-name`: the highest.
    flops_per_token: forward and backward, for the log's FLOP/s and MFU.
    Errors: UserError for what the user can mend, Stopped (exit status 75) after a signal.
    """
    config, log, last = run.config, run.log, run.config.steps
    take = _compiled(config, run, learner, loss, feed)
    state = _begin(run, learner)
    step, saved = int(state.step), int(state.step)
    heldout = Heldout(watch, log.kept)
    pace = Pace(run.goodput, flops_per_token, config.microbatches, config.peak_tflops * 1e12)
    recovery = Recovery(run, state, partial(_begin, run, learner), feed.records)
    batches = _batches(run, feed, state, step, last)
    weights = sum(leaf.size for leaf in jax.tree.leaves(state.model))
    say(f"{weights:,} weights learn; compiling (step {step + 1})")
    run.foot(f"compiling (step {step + 1})")
    save_due = False
    while step < last:
        with explained(take):
            index, is_new_level, batch = next(batches, (0, False, None))
            if batch is None:  # its monitor ended the run
                last = step
                run.write_told(step + 1)
            else:
                step += 1
                state = with_new_level(state) if is_new_level else state
                held = meshes.put_batch(batch, jax.sharding.get_mesh())
                state, metrics = recovery.step(step, index, state, partial(take, batch=held), batch)
                run.learned = state.model
                _read(run, recovery, heldout, pace, log.step(step, metrics) if metrics else None)
                run.write_told(step)
            stop = run.asked_to_stop()
            run.checkpoints.check()
            is_last, value = step == last, None
            # once in a while: held-out numbers
            if (is_last or due(step, config.evaluate_every)) and not recovery.back:
                _read(run, recovery, heldout, pace, log.flush())
                value = _evaluated(run, evaluate, learner.whole(_result(config, state)), step, heldout)
            # once in a while: a checkpoint, written while the next steps run; the log reaches up to it
            is_best = value is not None and heldout.best_step == step and config.safety.keep.best
            save_due |= is_last or is_best or stop or due(step, config.checkpoint_every)
            if save_due and not recovery.back:
                _read(run, recovery, heldout, pace, log.flush())
                # what a rollback goes to is from before refused steps
                if not recovery.back and (is_last or not recovery.refused):
                    _save(run, learner, state, value)
                    save_due, saved = False, step
            if stop and not is_last:
                run.stop(step, saved == step)
            if recovery.back:
                state = recovery.go_back()
                step, save_due = int(state.step), False
                heldout.restart(log.kept)
                batches = _batches(run, feed, state, step, last)
            if config.early_stop and heldout.since_best >= config.early_stop and not is_last:
                state, step = _best(run, learner, heldout, step)
                break
            run.watchdog.phase("step")
    return Trained(learner.whole(_result(config, state)), state, heldout.numbers(step))


def _compiled(config: TrainConfig, run: Run, learner: Learner, loss: Loss, feed: Feed) -> CompiledStep:
    """The step, compiled when it is first taken."""
    if (warmup := config.optimizer.warmup_steps) >= config.steps:
        say(f"optimizer.warmup_steps is {warmup}: {config.steps} steps never reach the peak rate")
    step = make_step(
        learner.loss(loss),
        optimizers.make(config.optimizer, config.steps),
        config.microbatches,
        watch_loss=not feed.samples,
        learning_rate=optimizers.learning_rate(config.optimizer, config.steps),
        ramps=feed.ramps,
        seed=config.seed,
    )
    return CompiledStep(step, config.microbatches, learner.frozen, Profile(run.folder, config.profile))


def _begin(run: Run, learner: Learner) -> TrainState:
    """The state to go on from: the newest checkpoint, else what the learner begins with."""
    config = run.config
    optimizer = optimizers.make(config.optimizer, config.steps)
    init = initializer(learner.init, optimizer, config.seed)
    if run.checkpoints.latest is not None:
        abstract = meshes.abstract(init, jax.sharding.get_mesh())
        saved = learner.saved(abstract.model)
        step, model, state = run.checkpoints.restore(saved, _beside(config, learner, abstract))
        if step > config.steps:
            raise UserError(
                f"{run.folder} has come to step {step}, and train.steps is {config.steps}; give it at least "
                f"{step}, or add --restart, which sets what stands aside"
            )
        say(f"resuming after step {step}")
        learned = (
            state.model if config.optimizer.average else learner.restored(abstract.model, model, state.model)
        )
        state = dataclasses.replace(state, model=learned)
    elif learner.first is None:
        state = jax.jit(init)()
    else:
        state = new_state(learner.first(), optimizer)
    run.learned = state.model
    return state


def _beside(config: TrainConfig, learner: Learner, state: TrainState) -> TrainState:
    """What a checkpoint has beside the weights that later stages load: where those are a running mean, the
    weights that learn too."""
    model = state.model if config.optimizer.average else learner.rest(state.model)
    return dataclasses.replace(state, model=model)


def _result(config: TrainConfig, state: TrainState) -> Any:
    """What learns, as it is judged and kept."""
    return averaged(config.optimizer, state.optimizer, state.model)


def _batches(
    run: Run, feed: Feed, state: TrainState, step: int, last: int
) -> Iterator[tuple[int, bool, Batch]]:
    """Batches with their indices, and whether a loss of another level may begin there; without those that
    rollbacks left out. Waiting for them is told apart from the steps."""
    rollbacks_R3 = np.asarray(state.rollbacks_R3)
    new = feed.phases | new_levels(rollbacks_R3)
    indices = [batch_index(n, rollbacks_R3) for n in range(step, last)]
    for _, numbered in groupby(enumerate(indices), lambda pair: pair[1] - pair[0]):
        together = [index for _, index in numbered]
        ahead = feed.read(together[0], together[-1] + 1)
        for index in together:
            if feed.samples:
                run.goodput.turn("rollout")
            elif index > indices[0]:  # the first waits for the feed to start
                run.goodput.turn("data")
            batch = next(ahead, None)
            if batch is None:
                return
            if feed.samples or index > indices[0]:
                run.goodput.turn("steps")
            yield index, index in new, batch


def _read(run: Run, recovery: Recovery, heldout: Heldout, pace: Pace, line: dict[str, float] | None) -> None:
    """Look at a step's numbers, and now and then say them."""
    if line is None:
        return
    pace.step(recovery.read(line), line)
    heldout.trained(line)
    step = int(line["step"])
    run.foot(pace.foot(line, run.config.steps))
    if due(step, run.config.log_every):
        speed = pace.line()
        run.log.write(step, speed)
        shown = {name: line[name] for name in ("loss", "grad_norm")}
        shown["targets/s"] = line["targets"] / line["seconds"]
        if speed.get("mfu") is not None:
            shown["mfu"] = speed["mfu"]
        if speed["peak_memory_bytes"]:
            shown["GiB"] = speed["peak_memory_bytes"] / 2**30
        if run.first:
            show(step, run.config.steps, shown)


def _evaluated(run: Run, evaluate: Evaluate, model: Any, step: int, heldout: Heldout) -> float | None:
    """Held-out numbers of this step; the one that is watched, smaller is better."""
    run.watchdog.phase("save")
    run.goodput.turn("evaluate")
    values = evaluate(model, step)
    run.log.write(step, heldout.evaluated(step, values))
    shown = {name: value for name, value in values.items() if isinstance(value, float)}
    if run.first and shown:
        show(step, run.config.steps, shown, "held-out")
    run.log.pause()
    run.goodput.turn("steps")
    return heldout.watched(values)


def _save(run: Run, learner: Learner, state: TrainState, value: float | None) -> None:
    run.watchdog.phase("save")
    run.goodput.turn("save")
    model = learner.saved(_result(run.config, state))
    run.checkpoints.save(int(state.step), model, _beside(run.config, learner, state), value)
    run.log.pause()
    run.goodput.turn("steps")


def _best(run: Run, learner: Learner, heldout: Heldout, step: int) -> tuple[TrainState, int]:
    """The state and step of the best evaluation, which are the result; what came later is discarded."""
    best = heldout.best_step
    if not best:
        raise UserError(
            f"train.early_stop: none of the evaluations up to step {step} gave a finite {heldout.name}; "
            "lower the learning rate, or look at the held-out data"
        )
    say(
        f"stopped early after step {step}: no better {heldout.name} in {heldout.since_best} evaluations; "
        f"the result is step {best}"
    )
    run.checkpoints.discard_after(best)
    run.log.rewind(best, but="rollback")
    run.log.write(best, {"kind": "early_stop", "stopped_at": step})
    return _begin(run, learner), best
