"""What is held out for evaluation, and how much of each source a training batch has."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.progress import say

MOST_CODE = 0.2  # of the held-out bytes: bits per byte of code is another quantity than of prose
MOST_OF_SOURCE = 0.1  # of a source's bytes may be held out
MOST_REPEATS = 4  # epochs; more teach little (Muennighoff et al. 2023, arXiv 2305.16264)


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Temperature, caps and limits between the weights of the config and those of training."""

    temperature: float | None = None
    """None: the weights as given. Else a source's share of the bytes counts too, as share^(1/temperature): 1
    reads each source as often as the others, 3.3 lifts small ones (Conneau et al. 2020, arXiv 1911.02116)."""
    most_share: float = 1.0
    """Largest weight (0 to 1) of one source; what is over goes to the others."""
    most_repeats: float | None = None
    """None: no limit. Else the largest number of epochs of a source while as many bytes are read as there
    are; what is over goes to the others."""


def mixture(weights: dict[str, float], kept_bytes: dict[str, int]) -> dict[str, float]:
    """Weights normalised over the sources that have documents; sum 1."""
    having = {source: weight for source, weight in weights.items() if weight > 0 and kept_bytes.get(source)}
    total = sum(having.values())
    return {source: weight / total for source, weight in sorted(having.items())}


def plan(weights: dict[str, float], kept_bytes: dict[str, int], balance: Balance) -> dict[str, float]:
    """The mixture of training: weights by temperature, then under the caps; tells what is read too often."""
    total = sum(kept_bytes.values())
    if balance.temperature is not None:
        shares = {name: kept_bytes.get(name, 0) / total for name in weights}
        power = 1 / balance.temperature
        weights = {name: weight * shares[name] ** power for name, weight in weights.items()}
    shares = mixture(weights, kept_bytes)
    repeats = math.inf if balance.most_repeats is None else balance.most_repeats
    caps = {name: min(balance.most_share, repeats * kept_bytes[name] / total) for name in shares}
    shares = capped(shares, caps)
    for name, share in shares.items():
        repeats = share * total / kept_bytes[name]
        if repeats > MOST_REPEATS:
            say(f"clean: {name} comes round {repeats:.1f} times for one round of all; lower its weight")
    return shares


def capped(shares: dict[str, float], caps: dict[str, float]) -> dict[str, float]:
    """Shares (sum 1) of which none is over its cap; the surplus goes to the others in proportion.

    UserError where the caps leave no room for all.
    """
    if sum(caps.values()) < 1 - 1e-9:
        raise UserError(
            f"`balance`: most_share and most_repeats let all sources have {sum(caps.values()):.2f} of the "
            "mixture together; raise one of them"
        )
    full: set[str] = set()
    while over := {name for name, share in shares.items() if share > caps[name] + 1e-12}:
        full |= over
        room = 1 - sum(caps[name] for name in full)
        free = sum(share for name, share in shares.items() if name not in full)
        shares = {name: caps[name] if name in full else share * room / free for name, share in shares.items()}
    return shares


def heldout_shares(
    mixture: dict[str, float], heldout_bytes: int, is_code: Callable[[str], bool]
) -> dict[str, int]:
    """Bytes to hold out of each source: by its weight, code at most a fifth of all."""
    code = sum(weight for source, weight in mixture.items() if is_code(source))
    scales = (MOST_CODE / code, (1 - MOST_CODE) / (1 - code)) if MOST_CODE < code < 1 else (1.0, 1.0)
    scaled = {source: weight * scales[not is_code(source)] for source, weight in mixture.items()}
    return {source: round(heldout_bytes * weight) for source, weight in scaled.items()}


def group_key(url_or_id: str) -> int:
    """64 bits that order groups: the first of the hash of their url."""
    return int.from_bytes(hashlib.blake2b(url_or_id.encode()).digest()[:8], "big")


def hold_out(source: str, groups: np.ndarray, sizes: np.ndarray, share: int) -> tuple[np.ndarray, bool]:
    """Which rows to hold out, and whether others of their groups may stay in training.

    groups: uint64 `group_key` of each row. sizes: its bytes. share: bytes asked for; a tenth of the source
    is the most.

    Documents of one group after another are taken, in the order of their keys, so that a corpus that grows
    keeps most of its held-out documents. Groups of more than a tenth are passed over. Where there are no
    others, the last documents of one are taken and the rest of it stays in training; else the smallest
    document, if it is no more than half of the source.
    """
    total = int(sizes.sum())
    limit = int(MOST_OF_SOURCE * total)
    _, own = np.unique(groups, return_inverse=True)
    order = np.argsort(own, kind="stable")
    is_large = np.bincount(own, sizes)[own[order]] > limit
    rows, is_part = _fill(order[~is_large], own, sizes, min(share, limit)), False
    if not len(rows) and share:
        rows, is_part = _fill(order[is_large][::-1], own, sizes, min(share, limit)), True
    if not len(rows) and share:
        rows = order[np.argsort(sizes[order], kind="stable")[:1]]
        rows = rows[2 * sizes[rows] <= total]
    is_part = is_part and bool(np.isin(np.delete(own, rows), own[rows]).any())
    held = int(sizes[rows].sum())
    if not 0.8 * share <= held <= 1.2 * share:
        say(f"clean: {source} holds out {held:,} of its {total:,} bytes instead of {share:,}")
    if is_part:
        say(f"clean: works of {source} are large, so what is held out is a part of one that is trained on")
    return rows, is_part


def _fill(rows: np.ndarray, groups: np.ndarray, sizes: np.ndarray, goal: int) -> np.ndarray:
    """The rows that fit, one after the other, up to the sum of sizes that is nearest to the goal.

    Where one does not fit whose group is begun, they end: one group at most is not whole.
    """
    taken, chosen = 0, []
    for row in rows.tolist():
        if taken + sizes[row] / 2 <= goal:
            chosen.append(row)
            taken += int(sizes[row])
        elif chosen and groups[chosen[-1]] == groups[row]:
            break
    return np.array(chosen, np.int64)
