"""jaxtrain dpo configs/dpo/1_dpo.py

A model that others published, improved on comparisons. Put its Hugging Face folder here as `model`, and
the comparisons into `preferences.jsonl`: prompt, chosen, rejected, or another format of docs/formats.md.
Then `jaxtrain run configs/dpo` and `jaxtrain chat runs/dpo/1_dpo`.
"""

from pathlib import Path

from jaxtrain.align.run import PreferenceConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = PreferenceConfig(
    model="model",
    preferences="preferences.jsonl",
    lora=LoRAConfig(rank=16, alpha=32.0),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=5e-5, warmup_steps=10, schedule="linear", weight_decay=0.0),
        mesh=MeshConfig(fsdp=-1),
        evaluate_every=50,
        checkpoint_every=50,
    ),
    epochs=1.0,
    batch_pairs=8,
    length=512,
    out=f"{RUNS}/1_dpo",
)
