"""jaxtrain finetune configs/arithmetic_grpo/5_finetune.py

Teaches it to answer a question with the sum alone. Result in a minute: 38 % of the additions that it never
met are right, 21 % where it samples.
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
        optimizer=OptimizerConfig(kind="muon", lr=2e-2, rest_lr=1e-2, warmup_steps=10, schedule="constant"),
        mesh=MeshConfig(fsdp=-1),
        steps=180,
        evaluate_every=60,
        checkpoint_every=60,
    ),
    batch_size=32,
    sample_questions=("23+45", "99+99"),
    out=f"{RUNS}/5_finetune",
)
