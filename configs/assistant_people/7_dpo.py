"""jaxtrain dpo configs/assistant_people/7_dpo.py

The fine-tuned model on the same comparisons, directly: adapters on top of its own. Not run at this size yet.
"""

from jaxtrain.align.run import PreferenceConfig
from jaxtrain.config import scaled
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = PreferenceConfig(
    model=f"{scale.runs}/4_finetune",
    ratings=f"{scale.runs}/5_rate",
    lora=LoRAConfig(rank=16, alpha=32.0),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=2e-4, warmup_steps=4, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=scale.dpo_steps,
        evaluate_every=0,
        checkpoint_every=8,
    ),
    batch_pairs=scale.pairs,
    length=96,
    out=f"{scale.runs}/7_dpo",
)
