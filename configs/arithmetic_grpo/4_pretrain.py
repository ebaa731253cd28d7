"""jaxtrain pretrain configs/arithmetic_grpo/4_pretrain.py

A model of 0.4 million weights on lines such as `23+45=68`.
"""

from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.optimizer import OptimizerConfig

config = PretrainConfig(
    data="runs/arithmetic_grpo/3_tokenize",
    model=ModelConfig(
        vocab_size=263, layers=3, d_model=128, heads=4, kv_heads=4, head_dim=32, d_hidden=256, max_length=64
    ),
    optimizer=OptimizerConfig(lr=3e-3, warmup_steps=20, schedule="linear", final_lr_share=0.1),
    mesh=MeshConfig(fsdp=-1),
    max_epochs=8,
    steps=150,
    batch_size=32,
    evaluate_every=75,
    checkpoint_every=75,
    sample_prompts=("23+45=", "99+99="),
    out="runs/arithmetic_grpo/4_pretrain",
)
