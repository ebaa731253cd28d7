"""jaxtrain finetune configs/smollm2_135m/5_finetune.py

All weights of SmolLM2-135M-Instruct, at a tenth of the adapters' learning rate.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="smollm2_135m",
    data=f"{RUNS}/3_tokenize",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=5e-5, warmup_steps=10, schedule="linear", final_lr_share=0.0),
        mesh=MeshConfig(fsdp=-1),
        steps=200,
        evaluate_every=50,
        checkpoint_every=50,
    ),
    batch_size=16,
    length=512,
    out=f"{RUNS}/5_finetune",
)
