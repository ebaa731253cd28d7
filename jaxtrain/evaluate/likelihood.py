"""Log-likelihoods of continuations after contexts. A context that several continuations share is read once.

A group is a context and its continuations. A batch holds groups of about the same size; the contexts fill a
cache, which every continuation then extends from the same place (arrays are values here, so nothing has to be
put back). The output head is applied to scored tokens alone.

B groups of a batch, P tokens of contexts, C tokens of continuations, D model, V vocab
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, groupby

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.decode.generate import pad_left
from jaxtrain.document import batched
from jaxtrain.model.cache import Cache, new_cache
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.runtime.progress import track

CHUNK = 8  # tokens of a row whose logits are in memory at once
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
        contexts = [group.context[:-1] for group in batch]
        tokens_BP, segments_BP = pad_left([*contexts, *[[]] * (rows - len(batch))], P, pad)
        cache = _read(model, *_put(tokens_BP, segments_BP), slots=P + C)
        for turn in range(max(len(group.continuations) for group in batch)):
            asked = [(row, group) for row, group in enumerate(batch) if turn < len(group.continuations)]
            ids_BC, targets_BC = np.full((rows, C), pad, np.int32), np.full((rows, C), pad, np.int32)
            counts_B = np.zeros(rows, np.int32)
            for row, group in asked:
                continuation = group.continuations[turn]
                count = counts_B[row] = len(continuation)
                ids_BC[row, :count] = [group.context[-1], *continuation[:-1]]
                targets_BC[row, :count] = continuation
            nats_BC, greedy_BC = meshes.fetch(_score(model, cache, *_put(ids_BC, targets_BC)))
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


@partial(jax.jit, static_argnames="slots")
def _read(model: Transformer, tokens_BP: jax.Array, segments_BP: jax.Array, slots: int) -> Cache:
    """The cache behind the contexts, with room for the continuations."""
    segments_BP = jax.sharding.reshard(segments_BP, P(BATCH, None))
    positions_BP = jnp.maximum(jnp.cumsum(segments_BP, axis=1) - 1, 0)
    cache = new_cache(model.config, tokens_BP.shape[0], slots)
    return model.extend(tokens_BP, segments_BP, positions_BP, cache)[1]


@jax.jit
def _score(
    model: Transformer, cache: Cache, ids_BC: jax.Array, targets_BC: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """log p of each target, float32, and whether it is the likeliest token."""
    B, C = ids_BC.shape
    ids_BC, targets_BC = (jax.sharding.reshard(x, P(BATCH, None)) for x in (ids_BC, targets_BC))
    first_B = jnp.sum(cache.segment_ids_BS, axis=1)
    positions_BC = first_B[:, None] + jnp.arange(C)
    hidden_BCD, _ = model.extend(ids_BC, jnp.ones_like(ids_BC), positions_BC, cache)

    def chunk(part: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden_BcD, targets_Bc = part
        logits_BcV = jax.sharding.reshard(model.logits(hidden_BcD), P(BATCH, None, None))
        is_target_BcV = targets_Bc[..., None] == jnp.arange(logits_BcV.shape[-1])
        target_Bc = jnp.sum(logits_BcV, axis=-1, where=is_target_BcV)
        nats_Bc = target_Bc - jax.nn.logsumexp(logits_BcV, axis=-1)
        return nats_Bc, target_Bc == jnp.max(logits_BcV, axis=-1)

    def cut(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, C // CHUNK, CHUNK, *x.shape[2:]), 1, 0)

    nats, greedy = jax.lax.map(chunk, (cut(hidden_BCD), cut(targets_BC)))
    whole = lambda x: jnp.moveaxis(x, 0, 1).reshape(B, C)  # noqa: E731
    return whole(nats), whole(greedy)
