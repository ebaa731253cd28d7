"""AdamW and its learning rate over the steps."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import optax


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019) after clipping the global gradient norm."""

    lr: float = 3e-3
    """Peak learning rate."""
    warmup_steps: int = 20
    """Steps of linear warmup from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay from the peak after warmup."""
    final_lr_share: float = 0.1
    """Learning rate at the last step as a share of the peak."""
    beta1: float = 0.9
    """Decay of the mean of gradients."""
    beta2: float = 0.95
    """Decay of the mean of squared gradients."""
    eps: float = 1e-8
    """Added to the root of that mean."""
    weight_decay: float = 0.1
    """Decoupled, times the learning rate; on matrices only, not on norms and embeddings."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient."""


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate as a function of the step."""
    decay_steps = max(1, steps - config.warmup_steps)
    match config.schedule:
        case "cosine":
            after = optax.cosine_decay_schedule(config.lr, decay_steps, config.final_lr_share)
        case "linear":
            after = optax.linear_schedule(config.lr, config.lr * config.final_lr_share, decay_steps)
        case "constant":
            after = optax.constant_schedule(config.lr)
    warmup = optax.linear_schedule(config.lr / (config.warmup_steps + 1), config.lr, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clip, then AdamW. The gradient's norm before clipping is the step's `grad_norm`."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps),
            config.beta1,
            config.beta2,
            config.eps,
            weight_decay=config.weight_decay,
            mask=decays,
        ),
    )


def decays(model: Any) -> Any:
    """True at the weights that decay: those whose name ends in their dimensions, the embedding aside."""

    def is_matrix(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
        return not any(name in ("scale", "embedding_VD") for name in names)

    return jax.tree_util.tree_map_with_path(is_matrix, model)
