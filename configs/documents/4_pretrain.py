"""jaxtrain pretrain configs/documents/4_pretrain.py

A small model, some minutes on two cores. With more text and time: more layers, d_model and steps.
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
        vocab_size=2048, layers=4, d_model=128, heads=4, kv_heads=4, head_dim=32, d_hidden=384, max_length=256
    ),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=3e-3, warmup_steps=20, schedule="cosine", final_lr_share=0.1),
        mesh=MeshConfig(fsdp=-1),
        steps=200,
        evaluate_every=50,
        checkpoint_every=50,
    ),
    batch_size=16,
    # A small folder is read many times over; what is then learnt by heart shows in the held-out text.
    max_epochs=50.0,
    out=f"{RUNS}/4_pretrain",
)
