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
TRIED, APART, MOST_APART = 3, 64, 128
"""Turns of a trial of the other kind, and until the next: twice as many each time that nothing changes."""
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
    """Whether guessing pays: tokens a second with it and without, each as it was measured last."""

    with_guesses: float = 0.0
    without: float = 0.0
    _pays: bool = field(default=False, repr=False)
    _apart: int = field(default=APART, repr=False)
    _turns: int = field(default=0, repr=False)
    """Since the last trial began."""

    def ahead(self) -> int:
        """How many tokens the next turn guesses: first a trial of each kind, then the faster one."""
        pays = self.with_guesses > self.without > 0
        if pays is not self._pays:
            self._pays, self._apart = pays, APART
        if self._turns == TRIED + self._apart:
            self._turns, self._apart = 0, min(2 * self._apart, MOST_APART)
        is_trial = self._turns < TRIED
        self._turns += 1
        return AHEAD if is_trial is not pays else 0

    def measured(self, ahead: int, tokens: float, seconds: float) -> None:
        """A turn's tokens a row, smoothed over some turns."""
        name, rate = ("with_guesses" if ahead else "without"), tokens / seconds
        before = getattr(self, name)
        setattr(self, name, rate if not before else 0.5 * before + 0.5 * rate)
