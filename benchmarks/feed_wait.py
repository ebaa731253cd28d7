"""Share of a pretraining run that is spent waiting for batches.

.venv/bin/python benchmarks/feed_wait.py CONFIG TOKENS [STEPS]
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from record import record

from jaxtrain import config as configs
from jaxtrain.feed import loader
from jaxtrain.pretrain.run import PretrainConfig, run


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("tokens")
    parser.add_argument("steps", type=int, nargs="?", default=60)
    arguments = parser.parse_args()
    config = configs.load(arguments.config)
    assert isinstance(config, PretrainConfig)
    waits: list[float] = []
    asked: list[float] = []
    prefetch = loader.prefetch

    def timed(dataset: Any, start: int, stop: int) -> Iterator[loader.Batch]:
        stream = prefetch(dataset, start, stop)
        for _ in range(start, stop):
            asked.append(time.perf_counter())
            batch = next(stream)
            waits.append(time.perf_counter() - asked[-1])
            yield batch

    loader.prefetch = timed
    with tempfile.TemporaryDirectory() as folder:
        steps = arguments.steps
        train = dataclasses.replace(config.train, steps=steps, evaluate_every=0, checkpoint_every=0)
        run(dataclasses.replace(config, data=arguments.tokens, out=f"{folder}/out", train=train))
    skipped = 3  # compilation
    total = asked[-1] - asked[skipped]
    found = {
        "config": arguments.config.as_posix(),
        "steps": arguments.steps - skipped - 1,
        "seconds_a_step": round(total / (arguments.steps - skipped - 1), 3),
        "share_waiting": round(sum(waits[skipped:-1]) / total, 5),
    }
    record("feed_wait", ["jax", "grain", "numpy"], found)


if __name__ == "__main__":
    main()
