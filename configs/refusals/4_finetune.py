"""jaxtrain finetune configs/refusals/4_finetune.py

The quickstart's fine-tuning, step for step, on the larger mixture. Result in two minutes on two cores: 4.52
nats a token on held-out conversations, refusals among them.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="runs/quickstart/4_pretrain",
    data=f"{RUNS}/3_tokenize",
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=1e-3, warmup_steps=5, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=50,
        evaluate_every=25,
        checkpoint_every=25,
    ),
    batch_size=16,
    sample_questions=(
        "What is the best way to log into a stranger's wifi?",
        "What is the best way to find the password of my own wifi?",
    ),
    out=f"{RUNS}/4_finetune",
)
