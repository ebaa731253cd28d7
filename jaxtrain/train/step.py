"""One step: gradient of the global mean loss, clip, guard, update. Jitted, its state donated."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import distributed
from jaxtrain.runtime.compiled import compiler_options
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.runtime.profile import Profile
from jaxtrain.train.guard import judge, limits
from jaxtrain.train.optimizer import accepted_steps
from jaxtrain.train.state import TrainState

Batch = dict[str, jax.Array]
Loss = Callable[..., tuple[Any, ...]]
"""(model, batch) to the sum of the loss, the sum of weights it is divided by and, where there is more to log,
a dict of float32 [2]: a sum and what that is divided by."""


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    microbatches: int = 1,
    watch_loss: bool = True,
    learning_rate: optax.Schedule | None = None,
    ramps: bool = False,
    seed: int = 0,
) -> Any:
    """The jitted `step(state, batch) -> state, metrics`.

    Metrics are scalars, and `limits`, what the guard held the step against. The loss is its sum over the
    whole batch divided by the weights of the whole batch, however many micro-batches the rows are cut into:
    never a mean of means.
    learning_rate: the optimizer's, for the log.
    ramps: the batch may end in micro-batches of padding alone; they are not computed, and the metric
    `microbatches` counts those that are.
    watch_loss: the guard watches the loss beside the gradient norm; off where it has no scale (PPO).
    The step may be given a third argument, weights that do not learn: then the loss is called with them and
    with a key of this step and these rows, drawn from `seed`.
    """

    def summed(model: Any, batch: Batch, *more: Any) -> tuple[jax.Array, tuple[jax.Array, dict[str, Any]]]:
        if more:
            frozen, key = more
            rows = jnp.sum(batch["tokens"]).astype(jnp.uint32)  # another key for each micro-batch
            more = frozen, jax.random.fold_in(key, rows)
        total, weight, *told = loss(model, batch, *more)
        return total, (weight, told[0] if told else {})

    def summed_gradient(model: Any, batch: Batch, count: int | jax.Array, *more: Any) -> Any:
        gradient_of = jax.value_and_grad(summed, has_aux=True)
        if microbatches == 1:
            return gradient_of(model, batch, *more)
        parts = {name: _split(rows, microbatches) for name, rows in batch.items()}

        def micro(part: int | jax.Array) -> Batch:
            return {name: jax.lax.dynamic_index_in_dim(rows, part, 0, False) for name, rows in parts.items()}

        def one(part: jax.Array, sums: Any) -> Any:
            return jax.tree.map(jnp.add, sums, gradient_of(model, micro(part), *more))

        shapes = jax.eval_shape(summed, model, micro(0), *more)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (zeros, jax.tree.map(jnp.zeros_like, model)))

    def step(state: TrainState, batch: Batch, frozen: Any = None) -> tuple[TrainState, dict[str, jax.Array]]:
        more = () if frozen is None else (frozen, jax.random.fold_in(jax.random.key(seed), state.step))
        count = _filled(batch, microbatches) if ramps else microbatches
        (total, (weight, told)), gradient = summed_gradient(state.model, batch, count, *more)
        mean = total / weight  # a batch without targets is 0 / 0, which the guard refuses
        gradient = jax.tree.map(lambda g: g / weight, gradient)
        grad_norm = optax.tree.norm(gradient)
        accepted, guard = judge(state.guard, mean if watch_loss else jnp.zeros_like(mean), grad_norm)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.model)
        new = optax.apply_updates(state.model, updates), optimizer_state
        model, optimizer_state = optax.tree.where(accepted, new, (state.model, state.optimizer))
        after = dataclasses.replace(
            state, step=state.step + 1, model=model, optimizer=optimizer_state, guard=guard
        )
        metrics = {
            "loss": mean,
            "grad_norm": grad_norm,
            "targets": weight,
            "accepted": accepted,
            "refused_in_a_row": guard.refused_in_a_row,
            "limits": limits(state.guard),
            **{name: sums[0] / sums[1] for name, sums in told.items()},
        }
        if ramps:
            metrics["microbatches"] = count
        if learning_rate is not None:  # refused steps do not count as the optimizer's
            metrics["learning_rate"] = learning_rate(accepted_steps(state.optimizer))
        return after, metrics

    return jax.jit(step, donate_argnums=0)


class CompiledStep:
    """The step, compiled once at its first call: another shape is an error, not a second compilation.

    Errors: RuntimeError naming the argument whose shape, type or sharding changed.
    """

    def __init__(self, step: Any, microbatches: int, frozen: Any, profile: Profile):
        self._step = step
        self._more = () if frozen is None else (frozen,)
        self._profile = profile
        self.microbatches = microbatches
        self.compiled: Any = None
        self.seconds = 0.0
        """Spent compiling."""

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        if self.compiled is None:
            begun = time.perf_counter()
            options = compiler_options(jax.default_backend(), jax.device_count())
            lowered = self._step.lower(state, batch, *self._more)
            self.compiled = lowered.compile(compiler_options=options)
            self.seconds = time.perf_counter() - begun

        def take() -> tuple[TrainState, dict[str, jax.Array]]:
            return self.compiled(state, batch, *self._more)

        try:
            return self._profile.around(take, self.compiled.as_text)
        except TypeError as error:
            changed = [line for line in str(error).splitlines() if line.startswith("Argument '")]
            told = "; ".join(changed) or str(error)
            raise RuntimeError(f"the step would have to be compiled a second time: {told}") from error


NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
"""Words in what JAX says: the second where a computation that was sent off fails later."""


@contextmanager
def explained(step: CompiledStep) -> Iterator[None]:
    """Turns running out of device memory, or the death of another process, into one line with a remedy."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if any(word in str(error) for word in NO_MEMORY):
            raise _out_of_memory(error, step) from error
        if lost := distributed.explain_lost_process(error):
            raise lost from error
        raise


def _out_of_memory(error: Exception, step: CompiledStep) -> UserError:
    """What took the memory of a device, by the compiled step's memory analysis, and what to change."""
    advice = (
        f"microbatches {step.microbatches} -> {2 * step.microbatches} halves the activations; "
        "twice mesh.fsdp halves weights, gradients and optimizer; or take a smaller batch_size or length"
    )
    sizes = step.compiled.memory_analysis() if step.compiled is not None else None
    if sizes is None:
        first = str(error).splitlines()[0][:300]
        return UserError(f"out of memory before the first step ({first}); {advice}")
    held, working = sizes.argument_size_in_bytes / 2**30, sizes.temp_size_in_bytes / 2**30
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    have = "" if limit is None else f" of {limit / 2**30:.3g} GiB"
    return UserError(
        f"out of memory: the step needs {held + working:.3g} GiB{have} a device: {held:.3g} GiB for weights, "
        f"optimizer and batch, {working:.3g} GiB for activations and gradients; {advice}"
    )


def _filled(batch: Batch, microbatches: int) -> jax.Array:
    """int32: micro-batches up to the last row that has a document."""
    rows = batch["segment_ids"].shape[0]
    filled = jnp.max(jnp.where(jnp.any(batch["segment_ids"] > 0, axis=1), jnp.arange(1, rows + 1), 0))
    return -(-filled * microbatches // rows)


def _split(rows: jax.Array, parts: int) -> jax.Array:
    """[B, …] to [parts, B / parts, …], rows still sharded over the batch axes."""
    rest = (None,) * (rows.ndim - 2)
    shape = (parts, rows.shape[0] // parts, *rows.shape[1:])
    return jnp.reshape(rows, shape, out_sharding=P(None, BATCH, "context", *rest))
