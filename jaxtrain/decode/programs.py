"""What the scheduler runs on the device: one program for each size of slots and of a piece of a prompt.

B batch, T tokens of a piece, V vocab, X likeliest tokens
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.decode import scoring, slots
from jaxtrain.decode.sampling import Choice, Sampling, choose
from jaxtrain.decode.slots import Decoder, Slots, append
from jaxtrain.runtime.mesh import BATCH

empty = jax.jit(slots.new_slots, static_argnums=(0, 1, 2, 3))
grown = partial(jax.jit, static_argnums=1)(slots.grown)
insert = partial(jax.jit, donate_argnums=0)(slots.insert)


@partial(jax.jit, donate_argnums=1, static_argnums=6)
def prefill(
    decoder: Decoder,
    cache: Slots,
    used_B: jax.Array,
    tokens_BT: jax.Array,
    count_B: jax.Array,
    targets_BT: jax.Array,
    is_scored: bool,
) -> tuple[Slots, scoring.Scores | None]:
    """Slots with tokens that follow the first `used_B`; how likely the tokens behind each are, if asked."""
    hidden_BTD, cache = append(decoder, replace(cache, used_B=used_B), tokens_BT, count_B)
    if not is_scored:
        return cache, None
    return cache, scoring.score(decoder.shell, hidden_BTD, targets_BT, scoring.MOST)


@partial(jax.jit, donate_argnums=1)
def turn(
    decoder: Decoder,
    cache: Slots,
    token_B: jax.Array,
    given_B: jax.Array,
    sampling: Sampling,
    seed_B2: jax.Array,
    prompt_length_B: jax.Array,
    is_active_B: jax.Array,
    is_told_B: jax.Array,
) -> tuple[Slots, Choice, tuple[jax.Array, jax.Array]]:
    """The next token of every row; `given_B` ≥ 0: it follows this one, the last of its prompt."""
    token_B = jnp.where(given_B >= 0, given_B, token_B)
    hidden_B1D, cache = append(decoder, cache, token_B[:, None], is_active_B)
    logits_BV = jax.sharding.reshard(decoder.shell.logits(hidden_B1D)[:, 0], P(BATCH, None))
    keys_B = jax.random.wrap_key_data(seed_B2)
    n_B = cache.used_B - prompt_length_B
    choice = choose(logits_BV, sampling, keys_B, n_B, cache.tokens_BS, cache.used_B)
    return cache, choice, scoring.likeliest(logits_BV, is_told_B)
