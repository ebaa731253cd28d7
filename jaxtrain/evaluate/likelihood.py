"""Log-likelihoods of continuations after contexts. A context that several continuations share is read once.

A group is a context and continuations of it, together one row: a token sees the context and its own
continuation, by position, whatever stands between. Scored tokens come first, so that the output head is
applied to few others; with gated DeltaNets, which read in order, a row is one context and continuation, and
these come last. A batch holds groups of about the same size.

B groups of a batch, T tokens of a group, C tokens that are scored, D model
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from jaxtrain.decode.scoring import CHUNK, score
from jaxtrain.document import batched
from jaxtrain.model.kernels import Sight
from jaxtrain.model.layers import WHOLE, Rule
from jaxtrain.model.stack import fold, gathered
from jaxtrain.model.transformer import Block, Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import BATCH
from jaxtrain.runtime.progress import track

CONTEXT = -1
"""The branch of a context; those of continuations count from 1, padding is 0."""
SCORED = 256
"""Tokens of a group that are scored at most, unless one continuation has more: attention sees them all."""
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


@dataclass
class _Group:
    context: Sequence[int]
    continuations: dict[int, list[int]] = field(default_factory=dict)
    """By their place among all that were asked for."""
    scored: int = 0

    @property
    def size(self) -> int:
        """The context's last token is read with each continuation, in the place of its last one."""
        return len(self.context) - 1 + self.scored


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
    in_order = model.config.delta_key_heads > 0  # its state goes from token to token, and forks nowhere
    start = lambda group, width: width - group.scored if in_order else 0  # noqa: E731
    found: dict[int, Likelihood] = {}
    weights = sum(leaf.size for leaf in jax.tree.leaves(model))
    patience = COMPILE_FLOPS.get(jax.devices()[0].platform, 1e14) / (2 * weights)
    groups = _grouped(pairs, 0 if in_order else SCORED)
    for batch in track(_batches(groups, tokens, patience), what or "likelihood"):
        T, C = (_rounded(max(sizes)) for sizes in zip(*((g.size, g.scored) for g in batch), strict=True))
        rows = -(-_rounded(len(batch), 1) // meshes.batch_rows()) * meshes.batch_rows()
        ids_BT, targets_BT = np.full((2, rows, T), pad, np.int32)
        positions_BT, branches_BT = np.zeros((2, rows, T), np.int32)
        for row, group in enumerate(batch):
            for branch, (part, continuation) in enumerate(_parts(group, start(group, T)), 1):
                ids_BT[row, part] = [group.context[-1], *continuation[:-1]]
                targets_BT[row, part] = continuation
                positions_BT[row, part] = len(group.context) - 1 + np.arange(len(continuation))
                branches_BT[row, part] = branch
            before = slice(T - group.size, T - group.scored) if in_order else slice(group.scored, group.size)
            ids_BT[row, before], branches_BT[row, before] = group.context[:-1], CONTEXT
            positions_BT[row, before] = np.arange(len(group.context) - 1)
        arrays = {"ids": ids_BT, "targets": targets_BT, "positions": positions_BT, "branches": branches_BT}
        own = meshes.put_batch(meshes.own_rows(arrays), jax.sharding.get_mesh())
        nats_BC, greedy_BC = meshes.fetch(_score(model, own, C))
        for row, group in enumerate(batch):
            for place, (part, _) in zip(group.continuations, _parts(group, start(group, C)), strict=True):
                nats = float(nats_BC[row, part].astype(np.float64).sum())
                found[place] = Likelihood(nats, bool(greedy_BC[row, part].all()))
    return [found[place] for place in range(len(pairs))]


def _parts(group: _Group, at: int) -> Iterator[tuple[slice, list[int]]]:
    """The group's continuations, and where in a row each is, from `at` on."""
    for continuation in group.continuations.values():
        yield slice(at, at + len(continuation)), continuation
        at += len(continuation)


def _grouped(pairs: Sequence[tuple[list[int], list[int]]], most: int = SCORED) -> list[_Group]:
    groups, latest = [], {}
    for place, (context, continuation) in enumerate(pairs):
        group = latest.get(key := tuple(context))
        if group is None or group.scored + len(continuation) > most:
            group = latest[key] = _Group(context)
            groups.append(group)
        group.continuations[place] = continuation
        group.scored += len(continuation)
    return groups


def _batches(groups: Sequence[_Group], tokens: int, patience: float) -> list[list[_Group]]:
    """Groups of about one size together, the largest first: a batch that does not fit shows at once.

    patience: tokens of padding that are cheaper than another size.
    """
    by_size: dict[int, list[_Group]] = defaultdict(list)
    for group in groups:
        by_size[_rounded(group.size)].append(group)
    shelves: dict[int, list[_Group]] = {}
    longest, padding = 0, 0
    for T, alike in sorted(by_size.items(), reverse=True):
        padding += len(alike) * (longest - T)
        if not shelves or padding > patience:
            longest, padding = T, 0
        shelves.setdefault(longest, []).extend(alike)
    batches = []
    for T, alike in shelves.items():
        parts = -(-len(alike) // max(1, tokens // T))
        batches += list(batched(alike, -(-len(alike) // parts)))
    return batches


def _rounded(size: int, least: int = CHUNK) -> int:
    """The next size for which there may be a program already: steps of an eighth, of `least` at first."""
    step = max(least, (1 << size.bit_length()) >> 4)
    return max(least, -(-size // step) * step)


@partial(jax.jit, static_argnums=2)
def _score(model: Transformer, batch: dict[str, jax.Array], scored: int) -> tuple[jax.Array, jax.Array]:
    """Of the `scored` tokens of each row: log p of their targets, float32, and whether argmax is it."""
    rows = P(BATCH, None)
    ids_BT, positions_BT, branches_BT, targets_BT = (
        jax.sharding.reshard(batch[name], rows) for name in ("ids", "positions", "branches", "targets")
    )
    keys_B1S, segments_BT = branches_BT[:, None], (branches_BT != 0).astype(jnp.int32)
    own = slice(-scored, None) if model.config.delta_key_heads else slice(scored)
    seen_BTS = (keys_B1S == branches_BT[:, :, None]) | (keys_B1S == CONTEXT)
    behind_BTS = positions_BT[:, :, None] - positions_BT[:, None]

    def sight(is_local: bool) -> Sight:
        mask_BTS = Rule.of(model.config, is_local).seen(behind_BTS, seen_BTS, positions_BT[..., None])
        return Sight(positions_BT, segments_BT, positions_BT, mask_BTS=mask_BTS)

    sights = {is_local: sight(is_local) for is_local in set(model.config.is_local)}

    def step(x_BTD: jax.Array, block: Block, is_local: bool, _: jax.Array | int) -> jax.Array:
        return block.whole(x_BTD, sights[is_local], WHOLE, is_local)[0]

    x_BTD = model.embed(ids_BT, positions_BT, WHOLE)
    for stacks in model.stacks:
        x_BTD = fold(step, x_BTD, gathered(stacks), model.config)
    found = score(model, model.normed(x_BTD[:, own]), targets_BT[:, own], 0)
    return found.logprob_BT, found.is_greedy_BT
