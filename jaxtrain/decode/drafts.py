"""Guesses at what comes next in a row: what followed its last tokens when they stood there before.

N-gram speculation, as in prompt lookup decoding (Saxena 2023). Answers that copy from their prompt, edited
code, lists and loops are guessed well; what is new is not, so a scheduler guesses only while it pays.

B batch, S slots, A guesses
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH

SAME = 3
"""Last tokens of a row that have to stand earlier in it, too."""
AHEAD = 4
"""Tokens guessed at once."""
FIRST, TRIED, APART, MOST_APART = 4, 8, 32, 512
"""Turns before the first trial of the other kind, most turns of one, bounds of those until the next."""
HOPELESS, LOSS = 0.6, 0.05
"""A trial ends below this share of the other rate; what it has cost is this share of the pause behind it."""
ROWS = P(BATCH, None)


def guesses(tokens_BS: jax.Array, used_B: jax.Array, token_B: jax.Array, count: int) -> jax.Array:
    """What followed the last time the tokens that end with `token_B`, int32 [B, count]; -1: they are new.

    tokens_BS: of each row the first `used_B` count; `token_B` follows those.
    """

    def of_row(tokens_S: jax.Array, used: jax.Array, token: jax.Array) -> jax.Array:
        places_S = jnp.arange(tokens_S.shape[0])
        tokens_S = jnp.where(places_S == used, token, tokens_S)
        same_S = (places_S >= SAME - 1) & (places_S < used)
        for back in range(SAME):
            same_S &= jnp.roll(tokens_S, back) == jnp.take(tokens_S, used - back, mode="clip")
        found = jnp.max(jnp.where(same_S & (used >= SAME), places_S, -1))
        places_A = found + 1 + jnp.arange(count)
        known_A = (found >= 0) & (places_A <= used)
        return jnp.where(known_A, jnp.take(tokens_S, places_A, mode="clip"), -1)

    of_rows = meshes.per_device(jax.vmap(of_row), (ROWS, P(BATCH), P(BATCH)), ROWS)
    return of_rows(tokens_BS, used_B, token_B)


@dataclass
class Pace:
    """Whether guessing pays: a row's tokens a second with it and without, each as it was measured last.

    The faster kind of turn runs. Now and then the other is tried: for long where that costs little (one row),
    for as few turns as it takes to see, and seldom, where it costs much (many rows).
    """

    with_guesses: float = 0.0
    without: float = 0.0
    _tried: bool | None = field(default=None, repr=False)
    """In a trial: whether it tries guesses."""
    _is_fresh: bool = field(default=False, repr=False)
    """What is tried was not measured in this trial yet."""
    _left: int = field(default=FIRST, repr=False)
    """Turns of the trial, or until the next."""

    def ahead(self, is_alone: bool) -> int:
        """How many tokens the next turn guesses. is_alone: nothing beside it keeps it from being measured."""
        pays = self.with_guesses > self.without > 0
        if not is_alone:
            return AHEAD if pays else 0
        if self._tried is not None:
            tried, other = self.with_guesses, self.without
            if not self._tried:
                tried, other = other, tried
            if not self._left or (not self._is_fresh and tried < HOPELESS * other):
                lost = (TRIED - self._left) * (other / tried - 1 if tried else 1)
                self._tried, self._left = None, int(min(max(lost / LOSS, APART), MOST_APART))
        elif not self._left:
            self._tried, self._is_fresh, self._left = not pays, True, TRIED
        self._left -= 1
        return AHEAD if (pays if self._tried is None else self._tried) else 0

    def measured(self, ahead: int, tokens: float, seconds: float) -> None:
        """A turn's tokens a row, smoothed over some turns."""
        name, rate = ("with_guesses" if ahead else "without"), tokens / seconds
        before, is_tried = getattr(self, name), bool(ahead) is self._tried
        is_first = not before or (is_tried and self._is_fresh)
        setattr(self, name, rate if is_first else 0.8 * before + 0.2 * rate)
        self._is_fresh &= not is_tried
