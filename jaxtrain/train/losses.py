"""Losses as pure functions of hidden states and targets; the logits of all positions never stand at once.

Each device works through its positions a chunk at a time, with its part of the vocabulary. The gradients are
written here: those of the training loss are found beside it, in the forward pass, so no logit is made twice.

B batch, T time, C chunk of time, D model, V vocab (on this device)
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import mesh as meshes

LOGITS, TOKENS = 1 << 24, 256
"""A chunk's logits on a device, at most; but at least so many tokens, or summing gradients takes the time."""

HIDDEN, ROWS = P(meshes.BATCH, "context", None), P(meshes.BATCH, "context")


@dataclass(frozen=True)
class _Head:
    """How logits come from hidden states, and how the head's weight [D, V] is cut."""

    bound: float
    """Logits are bound · tanh(logit / bound); 0: as they are."""
    temperature: float
    width: str | None
    vocab: str | None

    @property
    def spec(self) -> P:
        return P(self.width, self.vocab)

    def logits(self, hidden_BCD: jax.Array, head_DV: jax.Array) -> jax.Array:
        logits_BCV = jnp.einsum("bcd,dv->bcv", hidden_BCD, head_DV, preferred_element_type=jnp.float32)
        bounded_BCV = self.bound * jnp.tanh(logits_BCV / self.bound) if self.bound else logits_BCV
        return bounded_BCV / self.temperature

    def slope(self, logits_BCV: jax.Array) -> jax.Array | float:
        """d(logit) / d(matmul's result)."""
        bend = 1 - (logits_BCV * (self.temperature / self.bound)) ** 2 if self.bound else 1.0
        return bend / self.temperature

    def over_vocab(self, reduce: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
        return reduce(x, self.vocab) if self.vocab else x


def token_loss(
    model: Any, batch: dict[str, jax.Array], z_loss: jax.Array | float = 0.0, balance: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy of weighted targets, nats (plus z_loss · log²Z, PaLM), and the sum of weights.

    balance: add what keeps a mixture's experts evenly used (in training; it is no property of the text).
    """
    hidden_BTD, penalty = model.hidden_and_penalty(batch["tokens"], batch["segment_ids"], batch["positions"])
    head, weight_DV = _head_of(model, 1.0)
    weights_BT = batch["loss_weights"].astype(jnp.float32)
    z_loss = jnp.asarray(z_loss, jnp.float32)
    nats = _weighted_nats(head, hidden_BTD, weight_DV, batch["targets"], weights_BT, z_loss)
    count = jnp.sum(weights_BT)
    return nats + penalty * count if balance else nats, count


def logprobs(
    model: Any, hidden_BTD: jax.Array, targets_BT: jax.Array, temperature: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """log p(target) and log Σ exp(logits), float32 [B, T]; differentiable in hidden states and head.

    Logits are bound (Gemma 2's soft-cap), then divided by the temperature.
    """
    head, weight_DV = _head_of(model, temperature)
    return _logprobs(head, hidden_BTD, weight_DV, targets_BT)


def _head_of(model: Any, temperature: float) -> tuple[_Head, jax.Array]:
    """A tied head's vocabulary is cut over `tensor` here, where that divides it; else it is whole."""
    head_DV = model.output_DV
    width, vocab = jax.typeof(head_DV).sharding.spec
    if head_DV.shape[1] % jax.sharding.get_abstract_mesh().shape["tensor"] == 0:
        vocab = "tensor"
    head = _Head(model.config.logit_softcap, temperature, width, vocab)
    return head, jax.sharding.reshard(head_DV, P(width, vocab))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logprobs(head: _Head, hidden_BTD, head_DV, targets_BT) -> tuple[jax.Array, jax.Array]:
    run = meshes.per_device(partial(_values, head), (HIDDEN, head.spec, ROWS), (ROWS, ROWS), check=False)
    return run(hidden_BTD, head_DV, targets_BT)


def _logprobs_forward(head: _Head, hidden_BTD, head_DV, targets_BT):
    return _logprobs(head, hidden_BTD, head_DV, targets_BT), (hidden_BTD, head_DV, targets_BT)


def _logprobs_backward(head: _Head, saved, gradients):
    given = lambda logprob_BC, total_BC, of_logprob_BC, of_total_BC: (of_logprob_BC, of_total_BC)  # noqa: E731
    _, _, *pulled = _pull(head, given, *saved, *gradients)
    return *pulled, None


_logprobs.defvjp(_logprobs_forward, _logprobs_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _weighted_nats(head: _Head, hidden_BTD, head_DV, targets_BT, weights_BT, z_loss) -> jax.Array:
    logprob_BT, total_BT = _logprobs(head, hidden_BTD, head_DV, targets_BT)
    return jnp.sum(weights_BT * (z_loss * total_BT**2 - logprob_BT))


def _nats_forward(head: _Head, hidden_BTD, head_DV, targets_BT, weights_BT, z_loss):
    z_BT = jnp.full_like(weights_BT, 1.0) * z_loss
    slopes = lambda logprob, total, weights, z: (-weights, 2 * z * total * weights)  # noqa: E731
    logprob_BT, total_BT, *pulled = _pull(head, slopes, hidden_BTD, head_DV, targets_BT, weights_BT, z_BT)
    nats_BT = z_loss * total_BT**2 - logprob_BT
    return jnp.sum(weights_BT * nats_BT), (*pulled, nats_BT, jnp.sum(weights_BT * total_BT**2))


def _nats_backward(head: _Head, saved, gradient):
    hidden_BTD, head_DV, nats_BT, squares = saved
    scaled = ((gradient * x).astype(x.dtype) for x in (hidden_BTD, head_DV))
    return *scaled, None, gradient * nats_BT, gradient * squares


_weighted_nats.defvjp(_nats_forward, _nats_backward)


def _pull(head: _Head, slopes, hidden_BTD, head_DV, targets_BT, *of_tokens_BT):
    """log p, log Σ, gradients of hidden states and head; `slopes(log p, log Σ, *of_tokens)`: of the two."""
    given = HIDDEN, head.spec, ROWS, *[ROWS] * len(of_tokens_BT)
    found = ROWS, ROWS, HIDDEN, head.spec
    run = meshes.per_device(partial(_pulled, head, slopes), given, found, check=False)
    return run(hidden_BTD, head_DV, targets_BT, *of_tokens_BT)


def _values(head: _Head, hidden_BTD, head_DV, targets_BT):
    """On one device: log p(target) and log Σ exp(logits)."""
    whole_DV = _whole(head, head_DV, hidden_BTD.dtype)

    def one(_, chunk):
        logprob_BC, total_BC, *_ = _chunk(head, *chunk[:1], whole_DV, chunk[1])
        return None, (logprob_BC, total_BC)

    _, values = _over_chunks(one, None, (hidden_BTD, targets_BT), whole_DV.shape[1])
    return values


def _pulled(head: _Head, slopes, hidden_BTD, head_DV, targets_BT, *of_tokens_BT):
    """On one device: those, and the gradients. Sums of the head's gradient are float32."""
    whole_DV = _whole(head, head_DV, hidden_BTD.dtype)

    def one(sum_DV, chunk):
        hidden_BCD, targets_BC, *of_tokens_BC = chunk
        logprob_BC, total_BC, logits_BCV, is_target_BCV = _chunk(head, hidden_BCD, whole_DV, targets_BC)
        of_logprob_BC, of_total_BC = slopes(logprob_BC, total_BC, *of_tokens_BC)
        share_BCV = jnp.exp(logits_BCV - total_BC[..., None])
        pull_BCV = jnp.where(is_target_BCV, of_logprob_BC[..., None], 0)
        pull_BCV = pull_BCV + share_BCV * (of_total_BC - of_logprob_BC)[..., None]
        pull_BCV = (pull_BCV * head.slope(logits_BCV)).astype(hidden_BCD.dtype)
        of_hidden_BCD = jnp.einsum("bcv,dv->bcd", pull_BCV, whole_DV, preferred_element_type=jnp.float32)
        added_DV = jnp.einsum("bcd,bcv->dv", hidden_BCD, pull_BCV, preferred_element_type=jnp.float32)
        return sum_DV + added_DV, (logprob_BC, total_BC, of_hidden_BCD)

    start_DV = jnp.zeros(whole_DV.shape, jnp.float32)
    sum_DV, (logprob_BT, total_BT, of_hidden_BTD) = _over_chunks(
        one, start_DV, (hidden_BTD, targets_BT, *of_tokens_BT), whole_DV.shape[1]
    )
    of_hidden_BTD = head.over_vocab(jax.lax.psum, of_hidden_BTD).astype(hidden_BTD.dtype)
    sum_DV = jax.lax.psum(sum_DV, tuple(axis for axis in (*meshes.BATCH, "context") if axis != head.width))
    if head.width:
        sum_DV = jax.lax.psum_scatter(sum_DV, head.width, scatter_dimension=0, tiled=True)
    return logprob_BT, total_BT, of_hidden_BTD, sum_DV.astype(head_DV.dtype)


def _whole(head: _Head, head_DV: jax.Array, dtype: Any) -> jax.Array:
    """The head's weight for this device's part of the vocabulary."""
    weight_DV = head_DV.astype(dtype)
    return jax.lax.all_gather(weight_DV, head.width, axis=0, tiled=True) if head.width else weight_DV


def _chunk(head: _Head, hidden_BCD, head_DV, targets_BC):
    """log p(target), log Σ, the logits, and where the targets are among them."""
    logits_BCV = head.logits(hidden_BCD, head_DV)
    most_BC = head.over_vocab(jax.lax.pmax, logits_BCV.max(axis=-1))
    total_BC = head.over_vocab(jax.lax.psum, jnp.sum(jnp.exp(logits_BCV - most_BC[..., None]), axis=-1))
    total_BC = most_BC + jnp.log(total_BC)
    V = logits_BCV.shape[-1]
    first = jax.lax.axis_index(head.vocab) * V if head.vocab else 0
    is_target_BCV = targets_BC[..., None] == first + jnp.arange(V)
    target_BC = head.over_vocab(jax.lax.psum, jnp.sum(logits_BCV, axis=-1, where=is_target_BCV))
    return target_BC - total_BC, total_BC, logits_BCV, is_target_BCV


def _over_chunks(one, carry, arrays_BT: tuple[jax.Array, ...], V: int):
    """Scan `one(carry, chunk)` over the time of arrays [B, T, …], the last chunk filled up with zeros."""
    B, T = arrays_BT[0].shape[:2]
    C = min(T, -(-max(TOKENS, LOGITS // V) // B))
    if C == T:
        return one(carry, arrays_BT)
    count = -(-T // C)

    def cut(x: jax.Array) -> jax.Array:
        filled = jnp.pad(x, ((0, 0), (0, count * C - T), *((0, 0),) * (x.ndim - 2)))
        return jnp.moveaxis(filled.reshape(B, count, C, *x.shape[2:]), 1, 0)

    def joined(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(B, count * C, *x.shape[3:])[:, :T]

    carry, outputs = jax.lax.scan(one, carry, tuple(map(cut, arrays_BT)))
    return carry, jax.tree.map(joined, outputs)
