"""A reward model on comparisons of people, beside the length of the answer alone.

python benchmarks/human_pairs.py data/people/harmless_base.jsonl.gz --model runs/quickstart/5_finetune
writes benchmarks/results/human_pairs.json

Of a file of hh-rlhf's transcripts (Bai et al. 2022, MIT), or any other that `rate export` takes. A fifth of
the prompts is held out. Passes: the 95 % bootstrap interval of the difference in held-out accuracy to the
length-only baseline (the sign of length chosen on the training part) lies above 0. The file does not say how
often two people agree.
"""

import argparse
import json
from pathlib import Path

from record import record

from jaxtrain.align.run import RewardConfig
from jaxtrain.align.run import run as align
from jaxtrain.rate import people
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--model", default="runs/quickstart/5_finetune")
    parser.add_argument("--out", type=Path, default=Path("runs/human_pairs"))
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--trunk", choices=("frozen", "trained"), default="frozen")
    parser.add_argument("--lr", type=float, default=3e-3)
    options = parser.parse_args()
    ratings = people.export(people.ExportConfig(database=str(options.file), out=str(options.out / "ratings")))
    config = RewardConfig(
        model=options.model,
        ratings=str(ratings),
        human=str(ROOT / "data" / "quickstart"),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=options.lr, warmup_steps=10, schedule="linear", weight_decay=0.1),
            evaluate_every=200,
            checkpoint_every=200,
        ),
        trunk=options.trunk,
        center=0.01,
        epochs=options.epochs,
        batch_prompts=16,
        length=96,
        out=str(options.out / f"reward_{options.trunk}"),
    )
    folder = align(config)
    found = json.loads((folder / "manifest.json").read_text())
    command = (
        f"python benchmarks/human_pairs.py {options.file.name} --trunk {options.trunk} --lr {options.lr} "
    )
    command += f"--epochs {options.epochs}"
    passes = found["counts"]["gain_over_length"]["low"] > 0
    record("human_pairs", ["jax", "optax"], {"command": command, "passes": passes, **found["counts"]})


if __name__ == "__main__":
    main()
