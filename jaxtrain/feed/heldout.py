"""Bits per byte on held-out documents while a model is trained."""

from pathlib import Path

from jaxtrain.feed.loader import heldout_batches, heldout_sources
from jaxtrain.feed.sources import TokenData
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime.errors import UserError
from jaxtrain.train.heldout import bits_per_byte, summed_nats


def measure(
    model: Transformer, folder: str | Path, *, batch_size: int, length: int, most: int | None = None
) -> dict[str, float]:
    """Bits per byte by source, and of `all` together.

    most: batches read of each source, evenly spread, which stand for the rest; None: every one.
    Errors: UserError where no source has held-out text.
    """
    data, nats_of, size = TokenData.open(folder), {}, {}
    for source in heldout_sources(folder):
        batches = heldout_batches(folder, source, batch_size=batch_size, length=length)
        stride = 1 if most is None else -(-len(batches) // most)
        nats, targets = summed_nats(model, batches[::stride])
        lengths = data.heldout(source).lengths
        whole = lengths.sum() + len(lengths)  # <|eos|> is a target too
        nats_of[source], size[source] = nats * whole / targets, data.heldout_bytes(source)
    if not nats_of:
        raise UserError(f"{folder} has no held-out documents; give clean a heldout_bytes above 0")
    nats_of["all"], size["all"] = sum(nats_of.values()), sum(size.values())
    return {source: float(bits_per_byte(nats, size[source])) for source, nats in nats_of.items()}
