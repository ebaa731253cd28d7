"""One step: gradient of the global mean loss, clip, guard, update. Jitted, its state donated."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime.mesh import BATCH
from jaxtrain.train.guard import judge
from jaxtrain.train.state import TrainState

Batch = dict[str, jax.Array]
Loss = Callable[[Any, Batch], tuple[jax.Array, jax.Array]]
"""(model, batch) to the sum of the loss and the sum of weights it is divided by."""
Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


def make_step(
    loss: Loss, optimizer: optax.GradientTransformation, microbatches: int = 1, watch_loss: bool = True
) -> Step:
    """The jitted `step(state, batch) -> state, metrics`.

    The loss is its sum over the whole batch divided by the weights of the whole batch, however many
    micro-batches the rows are cut into: never a mean of means.
    watch_loss: the guard watches the loss beside the gradient norm; off where it has no scale (PPO).
    """

    def summed_gradient(model: Any, batch: Batch) -> tuple[jax.Array, jax.Array, Any]:
        if microbatches == 1:
            (total, weight), gradient = jax.value_and_grad(loss, has_aux=True)(model, batch)
            return total, weight, gradient

        def one(sums: Any, micro: Batch) -> tuple[Any, None]:
            (total, weight), gradient = jax.value_and_grad(loss, has_aux=True)(model, micro)
            return jax.tree.map(jnp.add, sums, (total, weight, gradient)), None

        zeros = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, model))
        return jax.lax.scan(one, zeros, {name: _split(rows, microbatches) for name, rows in batch.items()})[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        total, weight, gradient = summed_gradient(state.model, batch)
        mean = total / weight  # a batch without targets is 0 / 0, which the guard refuses
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        grad_norm = optax.tree.norm(gradient)
        accepted, guard = judge(state.guard, mean if watch_loss else jnp.zeros_like(mean), grad_norm)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.model)
        model = optax.apply_updates(state.model, updates)
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(accepted, n, o), new, old)  # noqa: E731
        after = dataclasses.replace(
            state,
            step=state.step + 1,
            model=keep(model, state.model),
            optimizer=keep(optimizer_state, state.optimizer),
            guard=guard,
        )
        metrics = {
            "loss": mean,
            "grad_norm": grad_norm,
            "targets": weight,
            "accepted": accepted,
            "refused_in_a_row": guard.refused_in_a_row,
        }
        return after, metrics

    return jax.jit(step, donate_argnums=0)


def _split(rows: jax.Array, parts: int) -> jax.Array:
    """[B, …] to [parts, B / parts, …], rows still sharded over the batch axes."""
    rest = (None,) * (rows.ndim - 2)
    shape = (parts, rows.shape[0] // parts, *rows.shape[1:])
    return jnp.reshape(rows, shape, out_sharding=P(None, BATCH, "context", *rest))
