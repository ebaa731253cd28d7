"""What exact mode costs: seconds of a GRPO round with it and without, in turns.

python benchmarks/exact.py [dense] [mixture] [--tries 3]          writes benchmarks/results/exact.json

256 answers of at most 32 tokens to additions, by a model of random weights, which hardly ever ends one. The
time is the log's: sampling and steps of a round, the median of all but the first two, which compile.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from record import record

from jaxtrain.align.grpo import GRPOConfig
from jaxtrain.align.run import run
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.tokenize.tokenizer import PATTERN, BytePairTokenizer
from jaxtrain.train.config import OptimizerConfig, TrainConfig
from jaxtrain.weights import folder as store

DATA = Path(__file__).parents[1] / "data" / "arithmetic"
SMALL = ModelConfig(vocab_size=263, layers=2, d_model=256, heads=4, kv_heads=4, head_dim=64, d_hidden=1024)
MODELS = {"dense": SMALL, "mixture": replace(SMALL, d_hidden=256, experts=8, experts_per_token=2)}
ROUNDS = 6


def seconds(model: Path, out: Path, exact: bool) -> float:
    """Of a round."""
    train = TrainConfig(
        optimizer=OptimizerConfig(lr=1e-5), steps=ROUNDS, log_every=1, evaluate_every=0, checkpoint_every=0
    )
    config = GRPOConfig(
        **{"model": str(model), "tasks": (str(DATA / "task.py"),), "data": str(DATA), "out": str(out)},
        **{"prompts": 32, "group": 8, "longest_prompt": 16, "max_new": 32, "measured": 8, "exact": exact},
        train=train,
    )
    lines = map(json.loads, (run(config) / "metrics.jsonl").read_text().splitlines())
    parts = ("seconds/rollout", "seconds/steps")
    spent = [sum(line[part] for part in parts) for line in lines if line.get("kind") == "speed"]
    return statistics.median(after - before for before, after in zip(spent[1:], spent[2:], strict=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=[*MODELS])
    parser.add_argument("--tries", type=int, default=3)
    options = parser.parse_args()
    mesh.ensure()
    tokenizer = BytePairTokenizer({bytes([n]): n for n in range(256)}, PATTERN)
    found = {}
    for name, config in ((name, MODELS[name]) for name in options.models):
        with tempfile.TemporaryDirectory() as root:
            model = Path(root) / "model"
            store.write_artifact(jax.jit(partial(Transformer, config))(jax.random.key(0)), tokenizer, model)
            pairs = [
                [seconds(model, Path(root) / f"{trial} {exact}", exact) for exact in (False, True)]
                for trial in range(options.tries)
            ]
        usual, exact = (statistics.median(times) for times in zip(*pairs, strict=True))
        found[name] = {"usual": usual, "exact": exact, "ratio": statistics.median(b / a for a, b in pairs)}
    record("exact", ["jax"], {"answers": 256, "tokens": 32, "tries": options.tries, "seconds_a_round": found})


if __name__ == "__main__":
    main()
