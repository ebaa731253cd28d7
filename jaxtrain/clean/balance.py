"""What is held out for evaluation, and how much of each source a training batch has."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from jaxtrain.runtime.progress import say

MOST_CODE = 0.2  # of the held-out bytes: bits per byte of code is another quantity than of prose
MOST_OF_SOURCE = 0.1  # of a source's bytes may be held out
MOST_REPEATS = 4  # epochs; more teach little (Muennighoff et al. 2023, arXiv 2305.16264)


@dataclass(frozen=True)
class Item:
    """What balance needs to know of a document."""

    id: str
    url: str
    bytes: int


def mixture(weights: dict[str, float], kept_bytes: dict[str, int]) -> dict[str, float]:
    """Weights normalised over the sources that have documents; sum 1."""
    having = {source: weight for source, weight in weights.items() if weight > 0 and kept_bytes.get(source)}
    total = sum(having.values())
    return {source: weight / total for source, weight in sorted(having.items())}


def say_repeats(mixture: dict[str, float], kept_bytes: dict[str, int]) -> None:
    """Tell which sources come round more often than is useful while as many bytes are read as there are."""
    everything = sum(kept_bytes[source] for source in mixture)
    for source, weight in mixture.items():
        repeats = weight * everything / kept_bytes[source]
        if repeats > MOST_REPEATS:
            say(f"clean: {source} comes round {repeats:.1f} times for one round of all; lower its weight")


def heldout_shares(
    mixture: dict[str, float], heldout_bytes: int, is_code: Callable[[str], bool]
) -> dict[str, int]:
    """Bytes to hold out of each source: by its weight, code at most a fifth of all."""
    code = sum(weight for source, weight in mixture.items() if is_code(source))
    scale_code, scale_rest = 1.0, 1.0
    if MOST_CODE < code < 1:
        scale_code, scale_rest = MOST_CODE / code, (1 - MOST_CODE) / (1 - code)
    return {
        source: round(heldout_bytes * weight * (scale_code if is_code(source) else scale_rest))
        for source, weight in mixture.items()
    }


def hold_out(source: str, items: list[Item], share: int) -> set[str]:
    """Ids to hold out: documents of one group (url) after another, in the order of the hashes of the groups.

    A corpus that grows so keeps most of its held-out documents. The last document passes the share
    only where that is nearer to it than to stop before.
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.url or item.id, []).append(item)
    limit = int(MOST_OF_SOURCE * sum(item.bytes for item in items))
    if share > limit:
        say(f"clean: {source} holds out {limit:,} bytes, a tenth of it, instead of {share:,}")
        share = limit
    if len(groups) == 1:
        say(f"clean: all of {source} has one url, so none of it is held out")
        return set()
    taken, heldout = 0, set()
    for group in sorted(groups, key=lambda group: hashlib.blake2b(group.encode()).digest()):
        for item in groups[group]:
            if taken >= share or (heldout and taken + item.bytes / 2 > share):
                return heldout
            heldout.add(item.id)
            taken += item.bytes
    return heldout
