"""Held-out loss: the same function in the loop and in the evaluate stage."""

import math
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from jaxtrain.runtime import mesh as meshes
from jaxtrain.train.losses import token_loss


def summed_nats(model: Any, batches: Iterable[dict[str, np.ndarray]]) -> tuple[float, float]:
    """Cross-entropy in nats summed over all targets of `batches`, and how many they are."""
    mesh = jax.sharding.get_mesh()
    sums = [_summed(model, meshes.put_batch(batch, mesh)) for batch in batches]
    nats, targets = np.sum(np.asarray(jax.device_get(sums), np.float64), axis=0)
    return float(nats), float(targets)


@jax.jit
def _summed(model: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    return token_loss(model, batch, balance=False)


def bits_per_byte(nats: float, utf8_bytes: int) -> float:
    """Nats of all tokens of a text over its bytes, in bits: comparable between tokenizers."""
    return nats / math.log(2) / utf8_bytes
