"""Answers of a round drawn side by side, or in fewer rows that are refilled: which is sooner done?

python benchmarks/rollouts.py MODEL     writes benchmarks/results/rollouts.json; MODEL: a finetune artifact

A round knows all of its prompts at once. Side by side (`generate`, what `align` does) it lasts as many turns
as its longest answer has tokens, all of its rows to the end; refilled (`Scheduler`) it needs fewer turns in
all the rows together, each of fewer rows. Both are compiled before they are timed, and take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from record import record

from jaxtrain.decode.generate import generate, row_keys
from jaxtrain.decode.request import Request
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.weights import folder as store

ANSWERS, PROMPT, TRIES = 128, 32, 3
SPREADS = {
    "24 tokens": np.full(ANSWERS, 24),
    "2 to 24 tokens": np.linspace(2, 24, ANSWERS),
    "8 to 128 tokens": np.linspace(8, 128, ANSWERS),
    "8 to 128 tokens, evenly in their logarithm": np.geomspace(8, 128, ANSWERS),
}
"""Tokens of the answers; no id ends one sooner (stop -1), so a length is what it is said to be."""


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - begun


def compare(model: Transformer, spread: np.ndarray) -> dict[str, float]:
    """Median seconds of each way; and of refilled rows the gain's share of its ideal.

    The ideal: as many times faster as the longest answer is longer than the mean.
    """
    rng = np.random.default_rng(0)
    prompts = rng.integers(0, model.config.vocab_size, (ANSWERS, PROMPT), np.int32)
    lengths = rng.permutation(spread.round().astype(int)).tolist()
    longest = max(lengths)
    requests = [
        Request(prompt=prompt, max_new=n, seed=seed)
        for seed, (prompt, n) in enumerate(zip(prompts.tolist(), lengths, strict=True))
    ]

    def side_by_side() -> object:
        keys_B, segments = row_keys(jax.random.key(0), ANSWERS), np.ones_like(prompts)
        held = mesh.put_batch({"tokens": prompts, "segments": segments}, jax.sharding.get_mesh())
        given = (held["tokens"], held["segments"], keys_B)
        return generate(model, *given, max_new=longest, temperature=1.0, stop=-1, pad=0)

    def refilled(rows: int) -> int:
        scheduler = Scheduler(model, rows=rows, max_length=PROMPT + longest)
        scheduler.complete(requests)
        return scheduler.tokens

    ways: dict[str, Callable[[], object]] = {
        "side by side": side_by_side,
        **{f"refilled, {rows} rows": lambda rows=rows: refilled(rows) for rows in (32, 64, 128)},
    }
    for work in ways.values():
        work()
    times = [{name: seconds(work) for name, work in ways.items()} for _ in range(TRIES)]
    found = {name: statistics.median(one[name] for one in times) for name in ways}
    beside, ideal = [one.pop("side by side") for one in times], longest / statistics.mean(lengths)
    shares = [before / min(refilled.values()) / ideal for before, refilled in zip(beside, times, strict=True)]
    return found | {"ideal": ideal, "share of the ideal": statistics.median(shares)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    folder = parser.parse_args().model
    mesh.ensure()
    model = store.load(folder)
    found = {name: compare(model, spread) for name, spread in SPREADS.items()}
    record("rollouts", ["jax"], {"answers": ANSWERS, "prompt": PROMPT, "seconds": found})


if __name__ == "__main__":
    main()
