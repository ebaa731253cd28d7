"""jaxtrain pretrain configs/gpt2_124m/1_pretrain.py

GPT-2 small (Radford et al. 2019) on one GPU: 20,000 steps of half a million tokens. `data` is a tokenize
artifact made with the `gpt2` encoding. Before a run: `jaxtrain plan configs/gpt2_124m/1_pretrain.py
--topology h100:1`.
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
        vocab_size=50_304,  # OpenAI's 50,257 and our special tokens, filled up to a multiple of 64
        layers=12,
        d_model=768,
        heads=12,
        kv_heads=12,
        head_dim=64,
        d_hidden=3072,
        max_length=1024,
        tied=True,
        norm="layer",
        norm_eps=1e-5,
        qk_norm=False,
        positions="learned",
        activation="gelu",
        gated=False,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        dtype="bfloat16",
        remat="dots",
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=6e-4, warmup_steps=700, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1),
        steps=20_000,
        microbatches=16,
        evaluate_every=500,
        checkpoint_every=1000,
    ),
    batch_size=512,
    out=f"{RUNS}/1_pretrain",
)
