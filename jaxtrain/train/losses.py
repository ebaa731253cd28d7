"""Losses as pure functions of hidden states and targets.

B batch, T time, C chunk of time, D model, V vocab
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime.mesh import BATCH

CHUNK = 128
"""Positions of each row whose logits exist at one time; they are computed again in the backward pass."""


def target_logprobs(
    hidden_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """log p(target) and log Σ exp(logits), float32 [B, T], never holding the logits of all positions."""
    B, T, D = hidden_BTD.shape
    C = max(size for size in range(1, min(T, CHUNK) + 1) if T % size == 0)

    def chunks(x: jax.Array, *rest: None) -> jax.Array:
        split = jnp.reshape(x, (B, T // C, C, *x.shape[2:]), out_sharding=P(BATCH, None, "context", *rest))
        return jnp.moveaxis(split, 1, 0)

    @jax.checkpoint
    def one(inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden_BCD, targets_BC = inputs
        logits_BCV = jnp.einsum(
            "bcd,dv->bcv",
            hidden_BCD,
            head_DV.astype(hidden_BCD.dtype),
            out_sharding=P(BATCH, "context", "tensor"),
        )
        logits_BCV = logits_BCV.astype(jnp.float32) / temperature
        total_BC = jax.nn.logsumexp(logits_BCV, axis=-1)
        is_target_BCV = targets_BC[..., None] == jnp.arange(logits_BCV.shape[-1])  # V is sharded: no gather
        return jnp.sum(logits_BCV, axis=-1, where=is_target_BCV) - total_BC, total_BC

    logprob, total = jax.lax.map(one, (chunks(hidden_BTD, None), chunks(targets_BT)))
    back = P(BATCH, "context")
    return tuple(jnp.reshape(jnp.moveaxis(x, 0, 1), (B, T), out_sharding=back) for x in (logprob, total))


def token_loss(model, batch: dict[str, jax.Array], z_loss: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of weighted targets, nats (plus z_loss · log²Z, PaLM), and the sum of weights."""
    hidden_BTD = model.hidden(batch["tokens"], batch["segment_ids"], batch["positions"])
    logprob_BT, total_BT = target_logprobs(hidden_BTD, model.head_DV[...], batch["targets"])
    weights_BT = batch["loss_weights"]
    loss_BT = -logprob_BT + z_loss * total_BT**2
    return jnp.sum(loss_BT * weights_BT), jnp.sum(weights_BT)
