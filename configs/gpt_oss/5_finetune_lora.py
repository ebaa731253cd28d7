"""jaxtrain finetune configs/gpt_oss/5_finetune_lora.py

Adapters of rank 16 on the attention of gpt-oss-120b; the 117 billion weights stay in bfloat16. `gpt_oss_120b`
is the Hugging Face folder as published, in MXFP4; `data` is a tokenize artifact made with its tokenizer.
Before a run:
`jaxtrain plan configs/gpt_oss/5_finetune_lora.py --topology v6e:8x8`, or with another topology.
"""

from pathlib import Path

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

RUNS = f"runs/{Path(__file__).resolve().parent.name}"

config = FinetuneConfig(
    model="gpt_oss_120b",
    data=f"{RUNS}/3_tokenize",
    lora=LoRAConfig(rank=16, alpha=32.0, targets=r"attention\.[qkvo]_.*"),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=2e-4, warmup_steps=50, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1, expert=8),
        steps=1000,
        microbatches=2,
        dtype="bfloat16",
        remat="full",
        evaluate_every=100,
        checkpoint_every=100,
    ),
    batch_size=128,
    length=4096,
    out=f"{RUNS}/5_finetune_lora",
)
