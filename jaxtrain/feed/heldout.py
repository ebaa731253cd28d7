"""Bits per byte on held-out documents while a model is trained."""

from dataclasses import dataclass
from pathlib import Path

from jaxtrain.feed.loader import heldout_batches, heldout_sources
from jaxtrain.feed.sources import TokenData
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.evaluation import bits_per_byte, summed_nats


@dataclass(frozen=True)
class HeldOut:
    """What a model needs for a source's held-out text."""

    nats: float
    bytes: int

    @property
    def bits_per_byte(self) -> float:
        return bits_per_byte(self.nats, self.bytes)


def measure(
    model: Transformer, folder: str | Path, *, batch_size: int, length: int, most: int | None = None
) -> dict[str, HeldOut]:
    """By source, and `all` together. most: batches read of each source, evenly spread; None: every one.

    Errors: UserError where no source has held-out text.
    """
    data, found = TokenData.open(folder), {}
    for source in heldout_sources(folder):
        batches = heldout_batches(folder, source, batch_size=batch_size, length=length)
        stride = 1 if most is None else -(-len(batches) // most)
        nats, targets = summed_nats(model, batches[::stride])
        lengths = data.heldout(source).lengths
        whole = lengths.sum() + len(lengths)  # <|eos|> is a target too
        found[source] = HeldOut(float(nats * whole / targets), data.heldout_bytes(source))
    if not found:
        raise UserError(f"{folder} has no held-out documents; give clean a heldout_bytes above 0")
    found["all"] = HeldOut(sum(h.nats for h in found.values()), sum(h.bytes for h in found.values()))
    return found
