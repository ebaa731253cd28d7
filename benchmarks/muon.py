"""Muon against AdamW on the quickstart's corpus: steps to the same held-out loss, the same tuning for both.

python benchmarks/muon.py --data runs/quickstart/3_tokenize     writes benchmarks/results/muon.json

A model of 1.3 million matrix weights. AdamW trains 200 steps of 1,024 tokens at each of three learning rates;
Muon trains three quarters of that at each of three, with its own full schedule. Muon passes where its best
held-out loss is at most AdamW's best. Curves of all runs are in the output.
"""

import argparse
import json
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax

from jaxtrain.feed import heldout, loader
from jaxtrain.model.config import ModelConfig
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train import loop, optimizer
from jaxtrain.train.losses import token_loss
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import initializer

RESULTS = Path(__file__).parent / "results" / "muon.json"
MODEL = ModelConfig(
    vocab_size=4096, layers=4, d_model=128, heads=2, kv_heads=2, head_dim=64, d_hidden=352, max_length=64
)
BATCH = 16
ADAMW = [3e-3, 6e-3, 12e-3]
MUON = [6e-3, 12e-3, 24e-3]
REST = 6e-3
"""AdamW's learning rate for what Muon does not take, fixed: the middle one of AdamW's three."""


def train(config: OptimizerConfig, steps: int, data: str) -> list[tuple[int, float]]:
    """Held-out bits per byte every 25 steps."""
    curve: list[tuple[int, float]] = []
    dataset = loader.document_batches(data, batch_size=BATCH, length=MODEL.max_length, seed=0)

    def evaluate(model, step):
        found = heldout.measure(model, data, batch_size=BATCH, length=MODEL.max_length, most=1)
        curve.append((step, found["all"].bits_per_byte))
        return {"bits_per_byte": found["all"].bits_per_byte}

    rule = optimizer.make(config, steps)
    with tempfile.TemporaryDirectory() as folder:
        loop.train(
            Path(folder),
            loop.Schedule(steps=steps, evaluate_every=25, checkpoint_every=steps, log_every=steps),
            init=initializer(partial(Transformer, MODEL), rule, seed=0),
            loss=partial(token_loss, z_loss=1e-4),
            optimizer=rule,
            batches=partial(loader.prefetch, dataset),
            evaluate=evaluate,
        )
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="runs/quickstart/3_tokenize")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    shared = {"warmup_steps": 10, "schedule": "linear", "final_lr_share": 0.05}
    runs = [("adamw", lr, options.steps, OptimizerConfig(lr=lr, **shared)) for lr in ADAMW]
    runs += [
        ("muon", lr, options.steps * 3 // 4, OptimizerConfig(kind="muon", lr=lr, rest_lr=REST, **shared))
        for lr in MUON
    ]
    found = []
    with jax.set_mesh(mesh.make(MeshConfig())):
        for kind, lr, steps, config in runs:
            found.append(
                {"kind": kind, "lr": lr, "steps": steps, "curve": train(config, steps, options.data)}
            )
    best = {
        kind: min((run for run in found if run["kind"] == kind), key=lambda run: run["curve"][-1][1])
        for kind in ("adamw", "muon")
    }
    target = best["adamw"]["curve"][-1][1]
    reached = [step for step, loss in best["muon"]["curve"] if loss <= target]
    result = {
        "command": f"python benchmarks/muon.py --steps {options.steps}",
        "versions": {name: version(name) for name in ("jax", "optax")},
        "rest_lr": REST,
        "adamw": {"lr": best["adamw"]["lr"], "steps": options.steps, "bits_per_byte": target},
        "muon": {"lr": best["muon"]["lr"], "bits_per_byte": best["muon"]["curve"][-1][1]},
        "muon_reaches_adamw_at_step": min(reached, default=None),
        "share_of_steps": min(reached) / options.steps if reached else None,
        "runs": found,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({name: result[name] for name in result if name != "runs"}, indent=1))


if __name__ == "__main__":
    main()
