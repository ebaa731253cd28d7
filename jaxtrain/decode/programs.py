"""What the scheduler runs on the device: one program for each size of slots and of a piece of a prompt.

B batch, T tokens of a piece or a turn, A guesses, D model, V vocab, X likeliest tokens
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.decode import drafts, scoring, slots
from jaxtrain.decode.request import Answer, Request
from jaxtrain.decode.sampling import Choice, Sampling, Settings, choose
from jaxtrain.decode.slots import Decoder, Slots, append
from jaxtrain.runtime.mesh import BATCH

empty = jax.jit(slots.new_slots, static_argnums=(0, 1, 2))
grown = partial(jax.jit, static_argnums=1)(slots.grown)
insert = partial(jax.jit, donate_argnums=0)(slots.insert)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Turn:
    """What a turn gave: T tokens a row, of which the first `count_B` are the answer's."""

    choice_TB: Choice
    """Each of its arrays is [T, B]."""
    likeliest_TBX: jax.Array
    """int32: the likeliest tokens in each place; zeros where no row asks for them"""
    likeliest_logprob_TBX: jax.Array
    count_B: jax.Array


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


@partial(jax.jit, donate_argnums=1, static_argnums=9)
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
    ahead: int,
    allowed_BW: jax.Array | None = None,
) -> tuple[Slots, jax.Array, Turn]:
    """The next tokens of every row; `given_B` ≥ 0: they follow this one, the last of its prompt.

    `ahead` tokens are guessed and read with the last one; every guess that is what would have been sampled
    in its place saves a turn, and no token is another for it. The array is the last token of each row.
    allowed_BW: uint8, a bit for each token of the vocabulary that may come; None: all may.
    """
    token_B = jnp.where(given_B >= 0, given_B, token_B)
    guess_BA = drafts.guesses(cache.tokens_BS, cache.used_B, token_B, ahead)
    tokens_BT = jnp.concatenate([token_B[:, None], guess_BA], axis=1)
    before_B = cache.used_B
    hidden_BTD, cache = append(decoder, cache, jnp.maximum(tokens_BT, 0), is_active_B)
    logits_BTV = jax.sharding.reshard(decoder.shell.logits(hidden_BTD), P(BATCH, None, None))
    keys_B = jax.random.wrap_key_data(seed_B2)
    allowed_BV = None if allowed_BW is None else _bits(allowed_BW, logits_BTV.shape[-1])

    def sampled(part: tuple[jax.Array, jax.Array]) -> tuple[Choice, tuple[jax.Array, jax.Array]]:
        at, logits_BV = part
        used_B = before_B + 1 + at
        n_B, tokens_BS = used_B - prompt_length_B, cache.tokens_BS
        choice = choose(logits_BV, sampling, keys_B, n_B, tokens_BS, used_B, allowed_BV)
        return choice, scoring.likeliest(logits_BV, is_told_B)

    positions_T = jnp.arange(1 + ahead)
    choice, likeliest = jax.lax.map(sampled, (positions_T, jnp.moveaxis(logits_BTV, 1, 0)))
    right_AB = choice.token_B[:-1] == guess_BA.T
    right_B = jnp.sum(jnp.cumprod(right_AB.astype(jnp.int32), axis=0), axis=0)
    last_B = jnp.sum(jnp.where(positions_T[:, None] == right_B, choice.token_B, 0), axis=0)
    cache = replace(cache, used_B=before_B + is_active_B * (1 + right_B))
    return cache, last_B, Turn(choice, *likeliest, 1 + right_B)


def _bits(bytes_BW: jax.Array, count: int) -> jax.Array:
    """Bool [B, count], of each byte the lowest bit first."""
    bits_BW8 = jnp.right_shift(bytes_BW[..., None], jnp.arange(8, dtype=jnp.uint8)) & 1
    return bits_BW8.reshape(bytes_BW.shape[0], -1)[:, :count] > 0


def settled(requests: list[Request | None]) -> tuple[Any, ...]:
    """What `turn` is told of the rows until one of them changes, on the host."""
    settings = [request.settings if request else Settings(temperature=0) for request in requests]
    seeds = np.array([request.seed & (2**64 - 1) if request else 0 for request in requests], np.uint64)
    lengths = [len(request.prompt) if request else 0 for request in requests]
    return (
        Sampling.of(settings),
        np.stack([seeds >> np.uint64(32), seeds & np.uint64(2**32 - 1)], 1).astype(np.uint32),
        np.array(lengths, np.int32),
        np.array([request is not None for request in requests], np.int32),
        np.array([request is not None and request.likeliest > 0 for request in requests]),
    )


def allowed(answers: list[Answer | None], vocab_size: int) -> np.ndarray:
    """Bits of the tokens that may come next in each row, uint8 [B, W]."""
    bits_BW = np.full((len(answers), -(-vocab_size // 8)), 255, np.uint8)
    for row, answer in enumerate(answers):
        if answer is not None and answer.request.allowed is not None:
            found = np.frombuffer(answer.request.allowed(answer.ids), np.uint8)[: bits_BW.shape[1]]
            bits_BW[row] = np.pad(found, (0, bits_BW.shape[1] - len(found)))
    return bits_BW
