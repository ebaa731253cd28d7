"""Optimizers and their learning rates over the steps: optax's, with what decays and what Muon takes."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from jaxtrain.train.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, steps: int, peak: float = 0.0) -> optax.Schedule:
    """The learning rate as a function of the step, from 0; peak: another than the config's."""
    peak = peak or config.lr
    decay_steps = max(1, steps - config.warmup_steps - 1)  # the last step has the final rate
    final = peak * config.final_lr_share
    match config.schedule:
        case "cosine":
            after = optax.cosine_decay_schedule(peak, decay_steps, config.final_lr_share)
        case "linear":
            after = optax.linear_schedule(peak, final, decay_steps)
        case "constant":
            after = optax.constant_schedule(peak)
        case "stable_decay":
            falling = min(decay_steps, round(steps * config.decay_share))
            after = optax.linear_schedule(peak, final, falling, transition_begin=decay_steps - falling)
    warmup = optax.linear_schedule(peak / (config.warmup_steps + 1), peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip, then the rule. The gradient's norm before clipping is the step's `grad_norm`."""
    rate = learning_rate(config, steps)
    match config.kind:
        case "adamw":
            rule = _adamw(config, rate)
        case "muon":
            rule = _muon(config, rate, learning_rate(config, steps, config.rest_lr))
        case "lion":
            rule = optax.lion(rate, config.beta1, config.beta2, weight_decay=config.weight_decay, mask=decays)
        case "adafactor":
            rule = optax.chain(
                optax.scale_by_factored_rms(decay_rate=0.8),
                optax.clip_by_block_rms(1.0),
                optax.add_decayed_weights(config.weight_decay, decays),
                optax.scale_by_learning_rate(rate),
            )
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    counted = optax.GradientTransformation(
        lambda model: Taken(jnp.int32(0)),
        lambda updates, state, model: (updates, Taken(state.accepted_steps + 1)),
    )
    beside = config.rest_lr or config.lr if config.kind == "muon" else config.lr
    # there also where it changes nothing, so that a run can go on with another rate
    embedding = optax.masked(optax.scale((config.embedding_lr or beside) / beside), is_embedding)
    average = [_average(config.average)] if config.average else []
    return optax.chain(counted, clip, rule, embedding, *average)


def _adamw(config: OptimizerConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    decay = config.weight_decay
    return optax.adamw(rate, config.beta1, config.beta2, config.eps, weight_decay=decay, mask=decays)


def _muon(
    config: OptimizerConfig, rate: optax.Schedule, rest_rate: optax.Schedule
) -> optax.GradientTransformation:
    matrices = optax.chain(
        _orthogonalised(config.momentum),
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(rate),
    )

    def labels(model: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: "matrices" if matrix_axes(path, leaf) else "rest", model
        )

    return optax.partition({"matrices": matrices, "rest": _adamw(config, rest_rate)}, labels)


def _orthogonalised(momentum: float) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised by five Newton-Schulz steps, of matrices sharded in any way.

    Jordan 2024 (github.com/KellerJordan/Muon); the factor 0.2 · sqrt(max(rows, columns)), which gives updates
    the root mean square of AdamW's, is of Liu et al. 2025 (arXiv 2502.16982). optax's rule does the work on
    each matrix; here is what it lacks: shardings. XLA lays out the products, under `auto_axes`.

    Cost of a matrix [m, n], m <= n, a step: 5 · (4 m² n + 2 m³) FLOPs beside the 6 · m · n of each token, and
    an exchange of its momentum where it is sharded. State: one moment of a matrix, AdamW has two.
    """

    def rule(updates: Any) -> optax.GradientTransformation:
        dimensions = jax.tree_util.tree_map_with_path(
            lambda path, leaf: MuonDimensionNumbers(*matrix_axes(path, leaf)), updates
        )
        # a function of the updates: a module, which is callable, would be taken for one
        return scale_by_muon(beta=momentum, weight_dimension_numbers=lambda _: dimensions)

    def scaled(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        sides = (math.prod(leaf.shape[axis] for axis in axes) for axes in matrix_axes(path, leaf))
        return leaf * (0.2 * math.sqrt(max(sides)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        shardings = jax.tree.map(lambda leaf: jax.typeof(leaf).sharding, (updates, state))
        orthogonal, state = jax.sharding.auto_axes(
            lambda updates, state: rule(updates).update(updates, state), out_sharding=shardings
        )(updates, state)
        return jax.tree_util.tree_map_with_path(scaled, orthogonal), state

    return optax.GradientTransformation(lambda model: rule(model).init(model), update)


class Taken(NamedTuple):
    """Steps that were accepted: where in its schedule the learning rate is."""

    accepted_steps: jax.Array


class Average(NamedTuple):
    """The running mean of the weights, which began at zero."""

    averaged_steps: jax.Array
    averaged_weights: Any


def accepted_steps(optimizer_state: Any) -> jax.Array:
    """int32: how often the optimizer has changed the weights."""
    return optax.tree.get(optimizer_state, "accepted_steps")


def _average(decay: float) -> optax.GradientTransformation:
    """The running mean of the weights that the updates lead to."""

    def init(model: Any) -> Average:
        return Average(jnp.int32(0), jax.tree.map(jnp.zeros_like, model))

    def update(updates: Any, state: Any, model: Any) -> tuple[Any, Any]:
        after = optax.apply_updates(model, updates)
        mean = optax.tree.update_moment(after, state.averaged_weights, decay, 1)
        return updates, Average(state.averaged_steps + 1, mean)

    return optax.GradientTransformation(init, update)


def averaged(config: OptimizerConfig, optimizer_state: Any, model: Any) -> Any:
    """The weights to judge and keep: their running mean without its bias, or `model` where none is kept."""
    steps = optax.tree.get(optimizer_state, "averaged_steps") if config.average else 0
    if not steps:
        return model
    mean = optax.tree.get(optimizer_state, "averaged_weights")
    return optax.tree.bias_correction(mean, jnp.float32(config.average), steps)


def _names(path: tuple[Any, ...]) -> list[str]:
    return [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]


def decays(model: Any) -> Any:
    """True at the weights that decay: those whose name ends in their dimensions, the embedding aside."""

    others = {"scale", "bias", "embedding_VD", "positions_TD", "sinks_N", "fade_log_N"}

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        return not any(name in others or "_bias_" in name for name in _names(path))

    return jax.tree_util.tree_map_with_path(is_matrix, model)


def is_embedding(model: Any) -> Any:
    """True at the embedding of tokens."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "embedding_VD" in _names(path), model)


def matrix_axes(path: tuple[Any, ...], leaf: Any) -> tuple[tuple[int, ...], ...]:
    """Axes of a weight that its input and its output run over, by its name; none where Muon is not for it.

    `q_DNH` takes D and gives N and H; `o_NHD` takes N and H and gives D. Axes that the name does not have
    (the layers), and E before two others, count matrices. C is a width as D is. Muon is not for embedding,
    positions, head, router, norms and biases.
    """
    name = next((name for name in reversed(_names(path)) if re.search(r"_[A-Z]+$", name)), "")
    letters = name.rpartition("_")[2]
    if len(letters) > 2:
        letters = letters.removeprefix("E")
    axes = [leaf.ndim - len(letters) + at for at in range(len(letters))]
    if len(axes) < 2 or set(letters) & {"V", "E", "T"} or not {letters[0], letters[-1]} & {"C", "D"}:
        return ()
    split = 1 if letters[0] in "CD" else len(axes) - 1
    return tuple(axes[:split]), tuple(axes[split:])
