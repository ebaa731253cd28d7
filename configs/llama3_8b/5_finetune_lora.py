"""jaxtrain finetune configs/llama3_8b/5_finetune_lora.py

Adapters of rank 16 on an 8B Llama 3: 42 million weights learn beside 8 billion that stay in bfloat16 (16 GB).
`llama3_8b` is the Hugging Face folder; `data` is a tokenize artifact made with its tokenizer.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="llama3_8b",
    data=f"{RUNS}/3_tokenize",
    lora=LoRAConfig(rank=16, alpha=32.0, dropout=0.05),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=2e-4, warmup_steps=50, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=1000,
        microbatches=4,
        dtype="bfloat16",
        remat="full",
        evaluate_every=100,
        checkpoint_every=100,
    ),
    batch_size=32,
    length=4096,
    out=f"{RUNS}/5_finetune_lora",
)
