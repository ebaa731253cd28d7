"""jaxtrain pretrain configs/qwen3_moe/1_pretrain.py

The shape of Qwen3-30B-A3B (arXiv 2505.09388, table 2): 128 experts of which a token visits 8. `data` is a
tokenize artifact made with its tokenizer. Before a run:
`jaxtrain plan configs/qwen3_moe/1_pretrain.py --topology v5p:4x4x4`, or with another topology.
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
        vocab_size=151_936,
        layers=48,
        d_model=2048,
        heads=32,
        kv_heads=4,
        head_dim=128,
        d_hidden=768,
        max_length=4096,
        qk_norm=True,
        rope_theta=1_000_000.0,
        experts=128,
        experts_per_token=8,
        balance_loss=0.001,
        dtype="bfloat16",
        remat="full",
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=3e-4, warmup_steps=2000, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1, expert=4),
        steps=100_000,
        microbatches=8,
        evaluate_every=1000,
        checkpoint_every=1000,
    ),
    batch_size=512,
    out=f"{RUNS}/1_pretrain",
)
