"""jaxtrain pretrain configs/llama3_70b/1_pretrain.py

The shape of Llama 3 70B (arXiv 2407.21783, table 3). `data` is a tokenize artifact made with its tokenizer.
Before a run: `jaxtrain plan configs/llama3_70b/1_pretrain.py --topology v5p:8x8x8`, or with another topology.
"""

from pathlib import Path

from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = PretrainConfig(
    data=f"{RUNS}/tokens",
    model=ModelConfig(
        vocab_size=128_256,
        layers=80,
        d_model=8192,
        heads=64,
        kv_heads=8,
        head_dim=128,
        d_hidden=28672,
        max_length=8192,
        qk_norm=False,
        norm_eps=1e-5,
        rope_theta=500_000.0,
        dtype="bfloat16",
        remat="full",
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1.5e-4, warmup_steps=2000, schedule="cosine", final_lr_share=0.01),
        mesh=MeshConfig(fsdp=-1),
        steps=100_000,
        evaluate_every=1000,
        checkpoint_every=1000,
    ),
    batch_size=512,
    out=f"{RUNS}/1_pretrain",
)
