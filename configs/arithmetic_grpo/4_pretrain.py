"""jaxtrain pretrain configs/arithmetic_grpo/4_pretrain.py

A model of 0.1 million weights on lines such as `23+45=68`.
"""

from pathlib import Path

from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = PretrainConfig(
    data=f"{RUNS}/3_tokenize",
    model=ModelConfig(
        vocab_size=263, layers=2, d_model=64, heads=2, kv_heads=2, head_dim=32, d_hidden=128, max_length=64
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(kind="muon", lr=2e-2, rest_lr=1e-2, warmup_steps=20, schedule="constant"),
        mesh=MeshConfig(fsdp=-1),
        steps=40,
        evaluate_every=20,
        checkpoint_every=20,
    ),
    max_epochs=8,
    batch_size=32,
    sample_prompts=("23+45=", "99+99="),
    out=f"{RUNS}/4_pretrain",
)
