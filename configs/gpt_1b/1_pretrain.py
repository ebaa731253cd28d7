"""jaxtrain pretrain configs/gpt_1b/1_pretrain.py

1.2 billion parameters on eight H100 or a v5e of sixteen chips: 25,000 steps of a million tokens. `data` is a
tokenize artifact of a tokenizer with 32,768 tokens. Before a run:
`jaxtrain plan configs/gpt_1b/1_pretrain.py --topology v5e:4x4`, or `--topology h100:8`.
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
        vocab_size=32_768,
        layers=20,
        d_model=2048,
        heads=16,
        kv_heads=16,
        head_dim=128,
        d_hidden=5632,
        max_length=2048,
        dtype="bfloat16",
        remat="full",
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=6e-4, warmup_steps=1000, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1),
        steps=25_000,
        microbatches=8,
        evaluate_every=500,
        checkpoint_every=1000,
    ),
    batch_size=512,
    out=f"{RUNS}/1_pretrain",
)
