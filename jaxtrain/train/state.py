"""TrainState: all that a training run is at a step. Resume = restore this and ask feed for step n."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
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
    passed: jax.Array
    """int32: batches passed over by rollbacks; step n reads batch n - 1 + passed"""


def new_state(model: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state of step 0 around weights that stand."""
    return TrainState(jnp.int32(0), model, jax.jit(optimizer.init)(model), new_guard(), jnp.int32(0))


def initializer(
    init_model: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, seed: int
) -> Callable[[], TrainState]:
    """A function without arguments that makes the state of step 0; jit it, or take its shapes alone."""

    def init() -> TrainState:
        model = init_model(jax.random.key(seed))
        return TrainState(jnp.int32(0), model, optimizer.init(model), new_guard(), jnp.int32(0))

    return init
