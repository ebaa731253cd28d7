"""jaxtrain finetune configs/llama3_8b/5_finetune.py

All weights of an 8B Llama 3: float32 weights, gradients and two moments, 128 GB over the devices of `fsdp`.
`llama3_8b` is the Hugging Face folder; `data` is a tokenize artifact made with its tokenizer.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="llama3_8b",
    data=f"{RUNS}/3_tokenize",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-5, warmup_steps=100, schedule="linear", final_lr_share=0.0),
        mesh=MeshConfig(fsdp=-1),
        steps=2000,
        dtype="bfloat16",
        remat="full",
        evaluate_every=200,
        checkpoint_every=200,
    ),
    batch_size=64,
    length=4096,
    out=f"{RUNS}/5_finetune",
)
