"""TrainState: all that a training run is at a step. Resume = restore this and ask feed for step n."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtrain.train.guard import Guard, new_guard


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    step: jax.Array
    """int32: steps done"""
    model: Any
    """A pytree of float32 weights (a Flax module)."""
    optimizer: Any
    """The optax state, sharded as the weights."""
    guard: Guard
    rollbacks_R3: jax.Array
    """int32 [R, 3]: the first batch that a rollback left out, how many, and 1 if the loss behind them may be
    of any level; zeros where there was none"""


MOST_ROLLBACKS = 32
"""Of a run: R."""


def new_state(model: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state of step 0 around weights that stand."""
    none_skipped = jnp.zeros((MOST_ROLLBACKS, 3), jnp.int32)
    return TrainState(jnp.int32(0), model, jax.jit(optimizer.init)(model), new_guard(), none_skipped)


def batch_index(step: int, rollbacks_R3: np.ndarray) -> int:
    """The batch that is read after `step` steps: the next that no rollback has left out."""
    index = step
    for first, count, _ in sorted(rollbacks_R3.tolist()):
        if index >= first:
            index += count
    return index


def new_levels(rollbacks_R3: np.ndarray) -> set[int]:
    """Batches whose loss may be of any level."""
    return {first + count for first, count, is_new in rollbacks_R3.tolist() if is_new}


def initializer(
    init_model: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, seed: int
) -> Callable[[], TrainState]:
    """A function without arguments that makes the state of step 0; jit it, or take its shapes alone."""
    return lambda: new_state(init_model(jax.random.key(seed)), optimizer)
