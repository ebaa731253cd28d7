"""Where the rows of a mixture travel, by numpy's word for each exchange."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxtrain.model.experts import places


@pytest.mark.parametrize("seed", range(3))
def test_rows_arrive_sorted_by_expert_and_come_back(seed: int) -> None:
    """By places alone, as `ragged_all_to_all` writes a slice: rows are (device, expert, number)."""
    X, E, own = 4, 8, 2
    rng = np.random.default_rng(seed)
    counts_XE = rng.integers(0, 5, (X, E)) * rng.integers(0, 2, (X, E))
    begins_XE, lands_XE = (np.asarray(one) for one in places(jnp.asarray(counts_XE)))
    sent = [[(x, e, n) for e in range(E) for n in range(counts_XE[x, e])] for x in range(X)]
    came = [[None] * int(counts_XE[:, x * own : (x + 1) * own].sum()) for x in range(X)]
    back = [[None] * len(rows) for rows in sent]
    for x in range(X):
        for e in range(E):
            first, there, count = begins_XE[x, e], lands_XE[x, e], counts_XE[x, e]
            came[e // own][there : there + count] = sent[x][first : first + count]
            back[x][first : first + count] = came[e // own][there : there + count]
    assert came == [
        sorted((r for rows in sent for r in rows if r[1] // own == x), key=by_expert) for x in range(X)
    ]
    assert back == sent


def by_expert(row: tuple[int, int, int]) -> tuple[int, int, int]:
    return row[1], row[0], row[2]
