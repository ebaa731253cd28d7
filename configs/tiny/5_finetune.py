"""jaxtrain finetune configs/tiny/5_finetune.py

Twenty steps on the conversations. Result in ten seconds: answers of a few common words.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model=f"{RUNS}/4_pretrain",
    data=f"{RUNS}/3_tokenize",
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=5e-3, warmup_steps=5, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=20,
        evaluate_every=20,
        checkpoint_every=10,
    ),
    batch_size=16,
    out=f"{RUNS}/5_finetune",
)
