"""Rounds of sampling and learning: what PPO, GRPO and distillation share.

A round is a function of the weights, of its number and of the lines logged before it, so a run that was
killed goes on from its newest checkpoint as if nothing had been.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain.align.adapters import Learner
from jaxtrain.align.losses import clip_fraction, kl
from jaxtrain.align.monitor import Monitor
from jaxtrain.align.rollout import Policy
from jaxtrain.feed.shuffle import key
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.metrics import MetricsLog, show
from jaxtrain.runtime.progress import say
from jaxtrain.runtime.signals import Stopped, StopSignals
from jaxtrain.runtime.trackers import Tracker, open_trackers
from jaxtrain.runtime.watchdog import Watchdog, WatchdogConfig
from jaxtrain.train.state import TrainState, initializer, new_state
from jaxtrain.train.step import Loss, make_step

Rows = dict[str, Any]
Line = dict[str, Any]
Play = Callable[[Policy, int, list[Line]], tuple[Rows, Line]]
"""(policy, number of the round, lines of the rounds before) to (rows to learn from, numbers to log)."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """When the loop does what, and on which part of the rows."""

    updates: int
    """Rounds of sampling and learning."""
    epochs: int
    """Passes over the rows of a round."""
    minibatches: int
    """Parts of a pass, an optimizer step each."""
    microbatches: int = 1
    """Parts that a minibatch is cut into to save memory; the step is the same."""
    checkpoint_every: int
    """Rounds between checkpoints."""
    seed: int
    """Of the order of the rows."""
    clip: tuple[float, float] = (0.2, 0.2)
    """Below and above 1: what counts as a clipped ratio in the log."""
    temperature: float = 1.0

    @property
    def steps(self) -> int:
        """Optimizer steps of a round."""
        return self.epochs * self.minibatches

    def check(self, rows: int, name: str) -> None:
        """UserError where the rows of a round, which the config gives as `name`, cannot be shared out."""
        parts = self.minibatches * self.microbatches * meshes.batch_rows()
        least = min(self.epochs, self.minibatches, self.microbatches, self.updates, self.checkpoint_every)
        if least < 1 or rows < 1 or rows % parts:
            micro = f" of {self.microbatches} microbatches" if self.microbatches > 1 else ""
            raise UserError(
                f"{name} is {rows}; {self.minibatches} minibatches{micro}, each shared by "
                f"{meshes.batch_rows()} devices, need a multiple of {parts}, and epochs at least 1"
            )


def improve(
    folder: Path,
    rounds: Rounds,
    *,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    loss: Loss,
    play: Play,
    monitor: Monitor,
    trackers: Sequence[Tracker] = ("tensorboard",),
    beside: Rows | None = None,
) -> tuple[Policy, list[Line]]:
    """The policy after the last round, from the newest checkpoint in `folder` where one stands; all lines.

    learner: what learns of a Policy. loss, play and the result: of whole policies.
    trackers: where else the numbers are shown.
    beside: what the loss finds in every batch beside the rows, such as a teacher; not with microbatches.
    A round's numbers are a line of metrics.jsonl; what the monitor says of them, one of kind `flag`.
    Errors: Stopped (exit status 75) after a signal.
    """
    keep_compiled()
    init = initializer(learner.init, optimizer, rounds.seed)
    step = make_step(learner.loss(loss), optimizer, rounds.microbatches, watch_loss=False)
    with ExitStack() as ends:
        watchdog = ends.enter_context(Watchdog(WatchdogConfig(), folder))
        checkpoints = ends.enter_context(closing(Checkpoints(folder / "checkpoint")))
        stands = checkpoints.latest is not None
        state = _resume(checkpoints, init) if stands else new_state(learner.first(), optimizer)
        done = int(state.step) // rounds.steps
        mirrors = open_trackers(trackers, folder)
        log = ends.enter_context(closing(MetricsLog(folder / "metrics.jsonl", done, mirrors)))
        signals = ends.enter_context(StopSignals())
        lines = [line for line in log.kept if "kind" not in line]
        stopped = any(line.get("kind") == "stop" for line in log.kept)
        for update in range(done, 0 if stopped else rounds.updates):
            rows, values = play(learner.whole(state.model), update, lines)
            state, learned = _learn(state, learner, step, rows, rounds, update, beside or {})
            line = {name: float(value) for name, value in (values | learned).items()}
            log.step(update + 1, line)
            log.flush()
            lines.append({"step": update + 1, **line})
            if update == 0 or (update + 1) % 5 == 0:
                show(update + 1, rounds.updates, line, "round")
            stopped = _tell(monitor, lines, log)
            is_last = stopped or update + 1 == rounds.updates
            if is_last or signals.asked or (update + 1) % rounds.checkpoint_every == 0:
                watchdog.phase("save")
                _save(checkpoints, state)
            if signals.asked and not is_last:
                checkpoints.wait()
                say(f"{signals.asked}: saved after round {update + 1}; the same command goes on")
                raise Stopped
            if stopped:
                break
            watchdog.phase("step")
    return learner.whole(state.model), lines


def _learn(
    state: TrainState, learner: Learner, step: Any, rows: Rows, rounds: Rounds, update: int, beside: Rows
) -> tuple[TrainState, dict[str, Any]]:
    """The steps of a round, and of the last one: gradient norm, how far the policy has moved, refusals."""
    refused, learned = 0.0, {}
    for part, is_last in minibatches(rows, rounds, update):
        if is_last and "old_logprobs" in part:
            policy = learner.whole(state.model)
            learned = moved(policy, part, *rounds.clip, temperature=rounds.temperature)
        state, metrics = step(state, part | beside, learner.frozen)
        refused += 1 - float(metrics["accepted"])
    return state, learned | {"grad_norm": metrics["grad_norm"], "refused": refused}


def minibatches(rows: Rows, rounds: Rounds, update: int) -> Iterator[tuple[dict[str, jax.Array], bool]]:
    """Each pass over the rows in a new order, in equal parts, and whether a part is the last."""
    rows, mesh = jax.device_get(rows), jax.sharding.get_mesh()
    count = len(next(iter(rows.values())))
    for epoch in range(rounds.epochs):
        order = np.random.default_rng(key(rounds.seed, "minibatches", update, epoch)).permutation(count)
        for number, part in enumerate(np.split(order, rounds.minibatches)):
            is_last = (epoch + 1, number + 1) == (rounds.epochs, rounds.minibatches)
            yield meshes.put_batch({name: values[part] for name, values in rows.items()}, mesh), is_last


@partial(jax.jit, static_argnames="temperature")
def moved(
    policy: Policy, batch: dict[str, jax.Array], clip_low: float, clip_high: float, temperature: float = 1.0
) -> dict[str, jax.Array]:
    """How far the policy is from the one that sampled: mean ratio, KL a token (k3), tokens clipped."""
    logprob_BT, _ = policy(batch, temperature)
    old_BT, mask_BT = batch["old_logprobs"], batch["mask"]
    count = jnp.sum(mask_BT)
    clipped = clip_fraction(
        logprob_BT, old_BT, batch["advantages"], mask_BT, clip=clip_low, clip_high=clip_high
    )
    return {
        "ratio": jnp.sum(jnp.exp(logprob_BT - old_BT), where=mask_BT > 0) / count,
        "step_kl": jnp.sum(kl(old_BT, logprob_BT, "k3"), where=mask_BT > 0) / count,
        "clip_fraction": clipped,
    }


def _tell(monitor: Monitor, lines: list[Line], log: MetricsLog) -> bool:
    """Write and say what the monitor finds; True where it ends the run."""
    flags = monitor.look(lines)
    for flag in flags:
        log.write(lines[-1]["step"], {"kind": "flag", **dataclasses.asdict(flag)})
        say(f"round {lines[-1]['step']}: {flag.meaning}")
    if stops := [flag.rule for flag in flags if flag.rule in monitor.stops]:
        log.write(lines[-1]["step"], {"kind": "stop", "rules": stops})
        say(f"stopped after round {lines[-1]['step']}, as monitor.stop_at says: {', '.join(stops)}")
    return bool(stops)


def _save(checkpoints: Checkpoints, state: TrainState) -> None:
    """`model` is what later stages load: the transformer alone, or its adapters."""
    policy = state.model
    heads = dataclasses.replace(state, model=(policy.critic, policy.value_D))
    checkpoints.save(int(state.step), policy.transformer, heads)


def _resume(checkpoints: Checkpoints, init: Callable[[], TrainState]) -> TrainState:
    state = meshes.abstract(init, jax.sharding.get_mesh())
    policy = state.model
    heads = dataclasses.replace(state, model=(policy.critic, policy.value_D))
    step, policy.transformer, training = checkpoints.restore(policy.transformer, heads)
    policy.critic, policy.value_D = training.model
    say(f"resuming after step {step}")
    return dataclasses.replace(training, model=policy)
