"""jaxtrain finetune configs/speedrun/6_finetune.py

The last polish: everyday conversations and GSM8K, twice over.
"""

from jaxtrain.config import scaled
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = FinetuneConfig(
    model=f"{scale.runs}/5_midtrain",
    data=f"{scale.runs}/3_tokenize",
    sources=("everyday", "gsm8k"),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=2e-5, warmup_steps=2, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        dtype=scale.dtype,
        steps=scale.finetune_steps,
        microbatches=scale.microbatches,
        evaluate_every=20,
        checkpoint_every=20,
    ),
    batch_size=max(8, scale.batch_size // 4),
    out=f"{scale.runs}/6_finetune",
)
