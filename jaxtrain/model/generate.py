"""Sampling: one prefill and one decode loop of fixed shapes, jitted.

B batch, P prompt, N new tokens, S = P + N cache slots, V vocab
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.model.cache import new_cache
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.runtime.mesh import BATCH


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
    *,
    max_new: int,
    temperature: float,
    stop: int,
    pad: int,
) -> Completions:
    """Sample after prompts padded on the left (segment 0), a key a row; temperature 0 takes the likeliest.

    A row's text depends on its own prompt and key alone, whatever else is in the batch.
    """
    B, prompt_length = prompt_BP.shape
    rows = P(BATCH)
    segments_BP = jax.sharding.reshard(segments_BP, P(BATCH, None))
    positions_BP = jnp.maximum(jnp.cumsum(segments_BP, axis=1) - 1, 0)
    cache = new_cache(model.config, B, prompt_length + max_new)
    hidden_BPD, cache = model.extend(prompt_BP, segments_BP, positions_BP, cache)

    def draw(hidden_BD: jax.Array, n: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits_BV = jax.sharding.reshard(model.logits(hidden_BD[:, None])[:, 0], P(BATCH, None))
        if temperature == 0:
            choice_B = jnp.argmax(logits_BV, axis=-1)
        else:
            logits_BV = logits_BV / temperature
            noise_BV = jax.vmap(
                lambda key: jax.random.gumbel(jax.random.fold_in(key, n), logits_BV.shape[-1:])
            )(keys_B)
            choice_B = jnp.argmax(logits_BV + noise_BV, axis=-1)
        is_choice_BV = choice_B[:, None] == jnp.arange(logits_BV.shape[-1])
        logprob_B = jnp.sum(logits_BV, axis=-1, where=is_choice_BV) - jax.nn.logsumexp(logits_BV, axis=-1)
        return choice_B.astype(jnp.int32), logprob_B

    def unfinished(carry) -> jax.Array:
        n, _, _, _, done_B, _ = carry
        return (n < max_new) & ~jnp.all(done_B)

    def extend(carry):
        n, hidden_BD, position_B, cache, done_B, out = carry
        choice_B, logprob_B = draw(hidden_BD, n)
        choice_B = jnp.where(done_B, pad, choice_B)
        live_B = 1.0 - done_B
        columns = (choice_B, live_B, logprob_B * live_B)
        whole = (out.tokens_BN, out.mask_BN, out.logprobs_BN)
        out = Completions(
            *(
                jax.lax.dynamic_update_slice_in_dim(w, c[:, None].astype(w.dtype), n, axis=1)
                for w, c in zip(whole, columns, strict=True)
            )
        )
        done_B = done_B | (choice_B == stop)
        ones_B1 = jnp.ones_like(choice_B[:, None])
        hidden_B1D, cache = model.extend(choice_B[:, None], ones_B1, position_B[:, None], cache)
        return n + 1, hidden_B1D[:, 0], position_B + 1, cache, done_B, out

    empty = Completions(
        jnp.full((B, max_new), pad, jnp.int32, out_sharding=P(BATCH, None)),
        jnp.zeros((B, max_new), out_sharding=P(BATCH, None)),
        jnp.zeros((B, max_new), out_sharding=P(BATCH, None)),
    )
    none_done_B = jnp.zeros((B,), bool, out_sharding=rows)
    start = (jnp.int32(0), hidden_BPD[:, -1], positions_BP[:, -1] + 1, cache, none_done_B, empty)
    return jax.lax.while_loop(unfinished, extend, start)[-1]


def pad_left(prompts: Sequence[Sequence[int]], length: int, pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids [B, P] and segments [B, P] (0 at padding) of prompts that end at the last column."""
    tokens = np.full((len(prompts), length), pad, np.int32)
    segments = np.zeros((len(prompts), length), np.int32)
    for row, prompt in enumerate(prompts):
        kept = list(prompt)[-length:]
        tokens[row, length - len(kept) :] = kept
        segments[row, length - len(kept) :] = 1
    return tokens, segments


def sample(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    max_new: int,
    stop: int,
    pad: int,
    temperature: float = 1.0,
    prompt_length: int | None = None,
) -> list[list[int]]:
    """Ids of each prompt's completion, with the stop token where one came; prompt i: key fold_in(seed, i)."""
    length = prompt_length or -(-max(map(len, prompts)) // 16) * 16  # few shapes, few compilations
    rows = -(-len(prompts) // mesh.batch_rows()) * mesh.batch_rows()
    tokens, segments = pad_left([*prompts, *[[stop]] * (rows - len(prompts))], length, pad)
    batch = mesh.put_batch({"tokens": tokens, "segments": segments}, jax.sharding.get_mesh())
    keys_B = row_keys(jax.random.key(seed), rows)
    out = generate(
        model,
        batch["tokens"],
        batch["segments"],
        keys_B,
        max_new=max_new,
        temperature=temperature,
        stop=stop,
        pad=pad,
    )
    ids, lengths = np.asarray(out.tokens_BN), np.asarray(out.mask_BN).sum(axis=1).astype(int)
    return [ids[row, : lengths[row]].tolist() for row in range(len(prompts))]


def row_keys(key: jax.Array, rows: int) -> jax.Array:
    """A key a row, sharded as the rows."""
    keys_B = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(rows))
    return jax.sharding.reshard(keys_B, P(BATCH))
