"""jaxtrain pretrain configs/quickstart/4_pretrain.py

A language model of 4 layers and 5.3 million parameters from scratch, on whatever devices there are: 200
steps of 4,096 tokens. Result in five minutes on two cores: 2.19 bits per byte of held-out text (`xz -9e`
needs 2.51); the same on any mesh (`--mesh.fsdp 4 --mesh.tensor 2` on eight devices).
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
        vocab_size=4096, layers=4, d_model=256, heads=4, kv_heads=4, head_dim=64, d_hidden=704, max_length=256
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=4e-3, warmup_steps=20, schedule="linear", final_lr_share=0.05),
        mesh=MeshConfig(fsdp=-1),
        steps=200,
        evaluate_every=50,
        checkpoint_every=50,
    ),
    batch_size=16,
    sample_prompts=("The city of", "She said", "def"),
    out=f"{RUNS}/4_pretrain",
)
