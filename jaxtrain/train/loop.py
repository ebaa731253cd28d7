"""The loop that pretrain, finetune and the reward model share: plain, and in one place."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.checkpoint import Checkpoints
from jaxtrain.runtime.metrics import MetricsLog, show
from jaxtrain.runtime.progress import say
from jaxtrain.train.state import TrainState, new_state
from jaxtrain.train.step import Loss, make_step

MOST_REFUSED = 20
"""Steps refused in a row after which going on is pointless."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When the loop does what."""

    steps: int
    """Optimizer steps of the whole run."""
    evaluate_every: int
    """Steps between evaluations (and after the last step)."""
    checkpoint_every: int
    """Steps between checkpoints (and after the last step)."""
    log_every: int = 10
    """Steps between console lines; metrics.jsonl has every step."""


def train(
    folder: Path,
    schedule: Schedule,
    *,
    init: Callable[[], TrainState],
    loss: Loss,
    optimizer: optax.GradientTransformation,
    batches: Callable[[int, int], Iterator[dict[str, np.ndarray]]],
    evaluate: Callable[[Any, int], dict[str, Any]],
    microbatches: int = 1,
    pretrained: Callable[[], Any] | None = None,
) -> TrainState:
    """Train to the last step, from the newest checkpoint in `folder` where one stands.

    init: the state of step 0; of `pretrained` weights its shapes alone are used.
    pretrained: loads the model of an earlier stage.
    batches(start, stop): host batches of those steps, a pure function of the step.
    evaluate(model, step): numbers for metrics.jsonl, written with `"kind": "heldout"`.
    """
    mesh = jax.sharding.get_mesh()
    with ExitStack() as ends:
        checkpoints = ends.enter_context(closing(Checkpoints(folder / "checkpoint")))
        state = _start(checkpoints, init, optimizer, pretrained)
        first = int(state.step)
        log = ends.enter_context(closing(MetricsLog(folder / "metrics.jsonl", resume_step=first)))
        step_function = make_step(loss, optimizer, microbatches)
        for step, batch in enumerate(batches(first, schedule.steps), first + 1):
            state, metrics = step_function(state, meshes.put_batch(batch, mesh))
            _watch(log.step(step, metrics), schedule)
            # once in a while: held-out numbers
            if step % schedule.evaluate_every == 0 or step == schedule.steps:
                _watch(log.flush(), schedule)
                values = evaluate(state.model, step)
                log.write(step, {"kind": "heldout", **values})
                shown = {name: value for name, value in values.items() if isinstance(value, float)}
                show(step, schedule.steps, shown, "held-out")
                log.pause()
            # once in a while: a checkpoint, written while the next steps run; the log reaches up to it
            if step % schedule.checkpoint_every == 0 or step == schedule.steps:
                _watch(log.flush(), schedule)
                checkpoints.save(step, state.model, dataclasses.replace(state, model=None))
    if (
        first == schedule.steps
    ):  # killed behind its last checkpoint: its caller has yet to see the last numbers
        evaluate(state.model, first)
    return state


def _start(
    checkpoints: Checkpoints,
    init: Callable[[], TrainState],
    optimizer: optax.GradientTransformation,
    pretrained: Callable[[], Any] | None = None,
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


def _watch(metrics: dict[str, float] | None, schedule: Schedule) -> None:
    """Tell a step's numbers on the console; RuntimeError where going on is pointless."""
    if metrics is None:
        return
    step = int(metrics["step"])
    if not metrics["accepted"]:
        say(
            f"step {step} refused: loss {metrics['loss']:.4g}, gradient norm {metrics['grad_norm']:.4g}; "
            "weights unchanged"
        )
    if metrics["refused_in_a_row"] >= MOST_REFUSED:
        raise RuntimeError(
            f"{MOST_REFUSED} steps refused in a row up to step {step}: loss {metrics['loss']:.4g}, "
            f"gradient norm {metrics['grad_norm']:.4g}; lower the learning rate or look at the data"
        )
    if step % schedule.log_every == 0:
        shown = {
            "loss": metrics["loss"],
            "grad_norm": metrics["grad_norm"],
            "targets/s": metrics["targets"] / metrics["seconds"],
        }
        show(step, schedule.steps, shown)
