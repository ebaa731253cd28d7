"""Log-likelihoods of continuations after contexts. A context that several continuations share is read once.

A group is a context and its continuations. A batch holds groups of about the same size; the contexts fill
slots, behind which every continuation then stands in its turn (arrays are values here, so nothing has to be
put back). The output head is applied to scored tokens alone.

B groups of a batch, P tokens of contexts, C tokens of continuations, D model
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, groupby

import jax
import jax.numpy as jnp
import numpy as np

from jaxtrain.decode.scoring import CHUNK, score
from jaxtrain.decode.slots import Slots, append, new_slots
from jaxtrain.document import batched
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.progress import track

SHARED = 8  # continuations of a group at most: one context's thousands would be rows of one
_Shape = tuple[int, int, int]
"""Tokens of contexts, tokens of continuations, continuations of a group."""
COMPILE_FLOPS = {"cpu": 1e11}
"""What a device computes while one more program is compiled, about a second; of others 1e14. Padding that
costs less is cheaper than another shape."""


@dataclass(frozen=True)
class Likelihood:
    """Of one continuation."""

    nats: float
    """log p(continuation | context), at most 0."""
    is_greedy: bool
    """Every token of it is the model's first guess."""


@dataclass(frozen=True)
class _Group:
    context: list[int]
    continuations: list[list[int]]
    places: list[int]
    """Of the continuations among all that were asked for."""

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.context) - 1, max(map(len, self.continuations))


def likelihoods(
    model: Transformer,
    pairs: Sequence[tuple[list[int], list[int]]],
    *,
    tokens: int,
    pad: int,
    what: str = "",
) -> list[Likelihood]:
    """Of each pair of ids (context, continuation), neither empty, in their order.

    tokens: of a batch, about; a context with its continuation is at most `max_length + 1` tokens.
    what: named in the progress bar.
    """
    found: list[Likelihood | None] = [None] * len(pairs)
    weights = sum(leaf.size for leaf in jax.tree.leaves(model))
    patience = COMPILE_FLOPS.get(jax.devices()[0].platform, 1e14) / (2 * weights)
    for batch in track(_batches(_grouped(pairs), tokens, patience), what or "likelihood"):
        P, C = (_rounded(max(sizes)) for sizes in zip(*(group.sizes for group in batch), strict=True))
        rows = -(-len(batch) // meshes.batch_rows()) * meshes.batch_rows()
        rows = -(-rows // 8) * 8 if rows > 8 else rows
        tokens_BP, is_real_BP = np.full((rows, P), pad, np.int32), np.zeros((rows, P), np.int32)
        for row, group in enumerate(batch):
            count = len(group.context) - 1  # the last one is read with each continuation
            tokens_BP[row, :count], is_real_BP[row, :count] = group.context[:-1], 1
        slots = _read(model, *_put(tokens_BP, is_real_BP), C)
        for turn in range(max(len(group.continuations) for group in batch)):
            asked = [(row, group) for row, group in enumerate(batch) if turn < len(group.continuations)]
            ids_BC, targets_BC = np.full((rows, C), pad, np.int32), np.full((rows, C), pad, np.int32)
            counts_B = np.zeros(rows, np.int32)
            for row, group in asked:
                continuation = group.continuations[turn]
                count = counts_B[row] = len(continuation)
                ids_BC[row, :count] = [group.context[-1], *continuation[:-1]]
                targets_BC[row, :count] = continuation
            nats_BC, greedy_BC = meshes.fetch(_score(model, slots, *_put(ids_BC, targets_BC)))
            for row, group in asked:
                scored = slice(0, counts_B[row])
                nats = float(nats_BC[row, scored].astype(np.float64).sum())
                found[group.places[turn]] = Likelihood(nats, bool(greedy_BC[row, scored].all()))
    assert all(likelihood is not None for likelihood in found)
    return [likelihood for likelihood in found if likelihood is not None]


def _grouped(pairs: Sequence[tuple[list[int], list[int]]]) -> list[_Group]:
    """Neighbours with the same context are one group."""
    groups = []
    numbered = enumerate(pairs)
    for context, alike in groupby(numbered, key=lambda entry: entry[1][0]):
        for some in batched(alike, SHARED):
            groups.append(_Group(context, [pair[1] for _, pair in some], [place for place, _ in some]))
    return groups


def _batches(groups: list[_Group], tokens: int, patience: float) -> list[list[_Group]]:
    """Groups of about one shape together, the largest first: a batch that does not fit shows at once.

    patience: tokens of padding that are cheaper than another shape.
    """
    shelves: dict[_Shape, list[_Group]] = defaultdict(list)
    for group in groups:
        P, C = map(_rounded, group.sizes)
        shelves[P, C, len(group.continuations)].append(group)

    def added(pair: tuple[_Shape, _Shape]) -> int:
        """Tokens of padding more where both have one shape."""
        both = _both(*pair)
        return sum(len(shelves[shape]) * (_cost(both) - _cost(shape)) for shape in pair)

    while len(shelves) > 1:
        pair = min(combinations(shelves, 2), key=added)
        if added(pair) > patience:
            break
        alike = [group for shape in pair for group in shelves.pop(shape)]
        shelves[_both(*pair)] += alike
    batches = []
    for (P, C, _), alike in sorted(shelves.items(), key=lambda shelf: sum(shelf[0][:2]), reverse=True):
        most = max(1, tokens // (P + C))
        parts = -(-len(alike) // most)
        batches += list(batched(alike, -(-len(alike) // parts)))
    return batches


def _both(one: _Shape, other: _Shape) -> _Shape:
    P, C, turns = map(max, one, other)
    return P, C, turns


def _cost(shape: _Shape) -> int:
    """Tokens that are computed for a group."""
    P, C, turns = shape
    return P + C * turns


def _rounded(size: int) -> int:
    """The next size for which there may be a program already: steps of 8, of an eighth from 128."""
    step = max(CHUNK, 1 << (size.bit_length() - 4) if size >= 128 else CHUNK)
    return max(CHUNK, -(-size // step) * step)


def _put(*arrays: np.ndarray) -> tuple[jax.Array, ...]:
    batch = meshes.own_rows({str(at): array for at, array in enumerate(arrays)})
    return tuple(meshes.put_batch(batch, jax.sharding.get_mesh()).values())


@partial(jax.jit, static_argnums=3)
def _read(model: Transformer, tokens_BP: jax.Array, is_real_BP: jax.Array, more: int) -> Slots:
    """Slots with the contexts in, and room for `more` tokens behind them."""
    B, P = tokens_BP.shape
    slots = new_slots(model.config, B, P + more, stacked=True)
    return append(model, slots, tokens_BP, jnp.sum(is_real_BP, axis=1))[1]


@jax.jit
def _score(
    model: Transformer, slots: Slots, ids_BC: jax.Array, targets_BC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """log p of each target, float32, and whether it is the likeliest token."""
    hidden_BCD, _ = append(model, slots, ids_BC, jnp.zeros_like(ids_BC[:, 0]))
    nats_BC, _, best_BC1 = score(model, hidden_BCD, targets_BC, 0)
    return nats_BC, nats_BC == best_BC1[..., 0]
