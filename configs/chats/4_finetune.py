"""jaxtrain finetune configs/chats/4_finetune.py

Adapters of rank 16 on every matrix of the model, 200 steps. `jaxtrain convert runs/chats/4_finetune my-model
--merge` writes whole weights for others to load.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="model",
    data=f"{RUNS}/3_tokenize",
    lora=LoRAConfig(rank=16, alpha=32.0),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=5e-4, warmup_steps=10, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=200,
        evaluate_every=50,
        checkpoint_every=50,
    ),
    batch_size=16,
    length=512,
    out=f"{RUNS}/4_finetune",
)
