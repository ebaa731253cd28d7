"""Sampling a whole batch inside one program: a prefill and a decode loop of fixed shapes, for reinforcement
learning on many hosts, where a turn should not wait for them. All else asks by `answers.py`.

B batch, P prompt, N new tokens, S = P + N slots, V vocab
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.decode.sampling import Sampling, Settings, choose
from jaxtrain.decode.slots import Decoder, append, new_slots
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.mesh import BATCH

ROWS = P(BATCH, None)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Completions:
    """What was sampled."""

    tokens_BN: jax.Array
    """int32; `pad` behind the stop token"""
    mask_BN: jax.Array
    """float32: 1 at sampled tokens, the stop token included"""
    logprobs_BN: jax.Array
    """float32: log p of each sampled token under the distribution sampled from (raw at temperature 1)"""


@partial(jax.jit, static_argnames=("max_new", "temperature", "stop", "pad"))
def generate(
    model: Transformer,
    prompt_BP: jax.Array,
    segments_BP: jax.Array,
    keys_B: jax.Array,
    forced_BN: jax.Array | None = None,
    *,
    max_new: int,
    temperature: float,
    stop: int | tuple[int, ...],
    pad: int,
) -> Completions:
    """Sample after prompts padded behind (segment 0), a key a row; temperature 0 takes the likeliest.

    stop: the token, or any of several, that ends a row.
    A row's text depends on its own prompt and key alone, whatever else is in the batch.
    forced_BN: int32, taken in place of sampled tokens where not negative: the program that draws then reads
    how likely they are, to the last bit as if it had drawn them.
    """
    B, prompt_length = prompt_BP.shape
    sampling = jax.tree.map(jnp.asarray, Sampling.of([Settings(temperature=temperature)] * B))
    stops_X = jnp.asarray([stop] if isinstance(stop, int) else stop, jnp.int32)
    decoder = Decoder.of(model)
    slots = new_slots(model.config, B, prompt_length + max_new)
    prompt_BP, segments_BP = (jax.sharding.reshard(x_BP, ROWS) for x_BP in (prompt_BP, segments_BP))
    forced_BN = None if forced_BN is None else jax.sharding.reshard(forced_BN, ROWS)
    before_B = jnp.sum(segments_BP, axis=1) - 1  # all but the last token, which the loop takes
    if prompt_length > 1:
        _, slots = append(decoder, slots, prompt_BP[:, :-1], before_B)
    last_B = jnp.sum(prompt_BP, axis=1, where=jnp.arange(prompt_length) == before_B[:, None])

    def unfinished(carry) -> jax.Array:
        n, _, done_B, _, _ = carry
        return (n < max_new) & ~jnp.all(done_B)

    def extend(carry):
        n, token_B, done_B, slots, out = carry
        hidden_B1D, slots = append(decoder, slots, token_B[:, None], jnp.ones_like(token_B))
        logits_BV = decoder.shell.logits(hidden_B1D)[:, 0]
        n_B = jnp.full_like(token_B, n)
        forced_B = None if forced_BN is None else jax.lax.dynamic_index_in_dim(forced_BN, n, 1, False)
        choice = choose(logits_BV, sampling, keys_B, n_B, slots.tokens_BS, slots.used_B, forced_B=forced_B)
        token_B = jnp.where(done_B, pad, choice.token_B)
        live_B = 1.0 - done_B
        columns = (token_B, live_B, choice.logprob_B * live_B)
        out = jax.tree.map(
            lambda whole, column: jax.lax.dynamic_update_slice_in_dim(
                whole, column[:, None].astype(whole.dtype), n, axis=1
            ),
            out,
            Completions(*columns),
        )
        done_B = done_B | jnp.any(token_B[:, None] == stops_X, axis=1)
        return n + 1, token_B, done_B, slots, out

    zeros_BN = jnp.zeros((B, max_new), out_sharding=ROWS)
    pads_BN = jnp.full((B, max_new), pad, jnp.int32, out_sharding=ROWS)
    none_done_B = jnp.zeros((B,), bool, out_sharding=P(BATCH))
    empty = Completions(pads_BN, zeros_BN, zeros_BN)
    return jax.lax.while_loop(unfinished, extend, (jnp.int32(0), last_B, none_done_B, slots, empty))[-1]


def padded(prompts: Sequence[Sequence[int]], length: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, P] and segments [B, P] (0 at padding, behind) of the last tokens of prompts."""
    tokens = np.full((len(prompts), length), pad, np.int32)
    segments = np.zeros((len(prompts), length), np.int32)
    for row, prompt in enumerate(prompts):
        kept = list(prompt)[-length:]
        tokens[row, : len(kept)], segments[row, : len(kept)] = kept, 1
    return tokens, segments


def row_keys(key: jax.Array, numbers_B: jax.Array) -> jax.Array:
    """A key a row, by the row's number, sharded as the rows."""
    keys_B = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers_B)
    return jax.sharding.reshard(keys_B, P(BATCH))
