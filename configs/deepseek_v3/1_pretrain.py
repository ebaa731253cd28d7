"""jaxtrain pretrain configs/deepseek_v3/1_pretrain.py

The shape of DeepSeek-V3 (arXiv 2412.19437, section 4.2): 671 billion weights, 256 experts of which a token
visits 8, and one that all visit; latent attention. `data` is a tokenize artifact made with its tokenizer.
Before a run:
`jaxtrain plan configs/deepseek_v3/1_pretrain.py --topology v5p:8x8x8`, or with another topology.
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
        vocab_size=129_280,
        layers=61,
        d_model=7168,
        heads=128,
        kv_heads=128,
        head_dim=192,
        rotary_dim=64,
        value_dim=128,
        latent_rank=512,
        query_rank=1536,
        d_hidden=2048,
        max_length=4096,
        qk_norm=False,
        rotary_interleaved=True,
        dense_layers=3,
        dense_hidden=18_432,
        experts=256,
        experts_per_token=8,
        shared_experts=1,
        router="sigmoid",
        expert_groups=8,
        groups_per_token=4,
        experts_scale=2.5,
        balance_loss=0.0001,
        dtype="bfloat16",
        remat="full",
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=2.2e-4, warmup_steps=2000, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1, expert=8),
        steps=100_000,
        microbatches=8,
        evaluate_every=1000,
        checkpoint_every=1000,
    ),
    batch_size=4096,
    out=f"{RUNS}/1_pretrain",
)
