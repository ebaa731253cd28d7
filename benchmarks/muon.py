"""Muon against AdamW on the quickstart's corpus: steps to the same held-out loss, the same tuning for both.

python benchmarks/muon.py --data runs/quickstart/3_tokenize     writes benchmarks/results/muon.json

A model of 0.8 million weights in matrices of blocks. AdamW trains 200 steps of 4,096 tokens, as many as the
quickstart's, with each of its trials; Muon three quarters of that, with its own full schedule, with each of
at least as many. A trial is a learning rate, that of the embedding, one of the decays, and for Muon the rate
of the other weights, which AdamW takes; each list was walked towards lower loss. Muon passes where its best
held-out loss is at most AdamW's best. Curves of all runs are in the output; two minutes a run.
"""

import argparse
import json
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

from jaxtrain.feed import heldout, loader
from jaxtrain.feed.documents import Documents
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.train import loop
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.context import training
from jaxtrain.train.learner import Learner
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig

RESULTS = Path(__file__).parent / "results" / "muon.json"
MODEL = ModelConfig(
    vocab_size=4096, layers=4, d_model=128, heads=2, kv_heads=2, head_dim=64, d_hidden=352, max_length=128
)
BATCH = 32
ADAMW: list[dict[str, float]] = [
    {"lr": 0.006, "embedding_lr": 0.9},
    {"lr": 0.012, "embedding_lr": 0.9},
    {"lr": 0.006, "embedding_lr": 2.0},
    {"lr": 0.004, "embedding_lr": 0.9},
    {"lr": 0.006, "embedding_lr": 0.3},
    {"lr": 0.018, "embedding_lr": 0.9},
    {"lr": 0.012, "embedding_lr": 0.3},
    {"lr": 0.024, "embedding_lr": 0.9},
    {"lr": 0.018, "embedding_lr": 0.9, "beta1": 0.8},
    {"lr": 0.018, "embedding_lr": 0.9, "beta2": 0.99},
]
MUON: list[dict[str, float]] = [
    {"lr": 0.012, "embedding_lr": 0.9, "rest_lr": 0.024},
    {"lr": 0.006, "embedding_lr": 0.9, "rest_lr": 0.024},
    {"lr": 0.012, "embedding_lr": 0.9, "rest_lr": 0.012},
    {"lr": 0.024, "embedding_lr": 0.9, "rest_lr": 0.024},
    {"lr": 0.012, "embedding_lr": 0.9, "rest_lr": 0.048},
    {"lr": 0.018, "embedding_lr": 0.3, "rest_lr": 0.024},
    {"lr": 0.036, "embedding_lr": 0.9, "rest_lr": 0.024},
    {"lr": 0.024, "embedding_lr": 0.3, "rest_lr": 0.024},
    {"lr": 0.048, "embedding_lr": 0.9, "rest_lr": 0.048},
    {"lr": 0.024, "embedding_lr": 0.9, "rest_lr": 0.024, "weight_decay": 0.0},
    {"lr": 0.024, "embedding_lr": 0.9, "rest_lr": 0.024, "momentum": 0.85},
    {"lr": 0.024, "embedding_lr": 0.9, "rest_lr": 0.024, "momentum": 0.7},
    {"lr": 0.018, "embedding_lr": 0.9, "rest_lr": 0.024, "momentum": 0.85},
]
SHARED = {"warmup_steps": 10, "schedule": "linear", "final_lr_share": 0.05}


def train(config: OptimizerConfig, steps: int, data: str) -> list[tuple[int, float]]:
    """Held-out bits per byte every 25 steps."""
    curve: list[tuple[int, float]] = []
    documents = Documents.open(data, batch_size=BATCH, length=MODEL.max_length, seed=0)

    def evaluate(model, step):
        found = heldout.measure(model, data, batch_size=BATCH, length=MODEL.max_length, most=1)
        curve.append((step, found["all"]))
        return {"bits_per_byte": found["all"]}

    settings = TrainConfig(
        optimizer=config, steps=steps, evaluate_every=25, checkpoint_every=0, log_every=0, trackers=()
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        training(settings, Path(folder), lambda folder: None) as run,
    ):
        loop.train(
            run,
            Learner(partial(Transformer, MODEL)),
            partial(token_loss, z_loss=1e-4),
            loop.Feed(partial(loader.prefetch, loader.document_batches(documents))),
            evaluate,
        )
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="runs/quickstart/3_tokenize")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    trials = [("adamw", options.steps, fields) for fields in ADAMW]
    trials += [("muon", options.steps * 3 // 4, fields) for fields in MUON]
    found = []
    for kind, steps, fields in trials:
        curve = train(OptimizerConfig(kind=kind, **fields, **SHARED), steps, options.data)
        found.append({"kind": kind, "steps": steps, **fields, "curve": curve})
    result = summary(found, options.steps)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in result if name != "runs"}, indent=1))


def summary(found: list[dict], adamw_steps: int) -> dict:
    """The best run of each, and whether Muon's reaches AdamW's loss."""
    best = {
        kind: min((run for run in found if run["kind"] == kind), key=lambda run: run["curve"][-1][1])
        for kind in ("adamw", "muon")
    }
    target = best["adamw"]["curve"][-1][1]
    reached = [step for step, loss in best["muon"]["curve"] if loss <= target]
    return {
        "command": f"python benchmarks/muon.py --steps {adamw_steps}",
        "versions": {name: version(name) for name in ("jax", "optax")},
        "adamw": best["adamw"],
        "muon": best["muon"],
        "muon_reaches_adamw_at_step": min(reached, default=None),
        "share_of_steps": min(reached) / adamw_steps if reached else None,
        "runs": found,
    }


if __name__ == "__main__":
    main()
