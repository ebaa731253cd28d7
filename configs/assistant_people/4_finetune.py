"""jaxtrain finetune configs/assistant_people/4_finetune.py

Adapters of rank 16, on short rows: of the conversations that fit them a quarter are refusals, and harmless
requests in the same words that are answered. Result in five minutes of processor time: 1.83 nats a token on
held-out conversations. It declines 40 % of the harmful requests of the evaluation (95 %: 30 to 50) and 32 %
of the harmless ones (24 to 42): too few steps to tell them apart. Wanted are 70 and 15.
"""

from jaxtrain.config import scaled
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = FinetuneConfig(
    model=scale.model,
    data=f"{scale.runs}/3_tokenize",
    lora=LoRAConfig(rank=16, alpha=32.0),
    train=TrainConfig(
        optimizer=OptimizerConfig(
            lr=1e-3, warmup_steps=2, schedule="linear", final_lr_share=0.0, weight_decay=0.0
        ),
        mesh=MeshConfig(fsdp=-1),
        steps=scale.finetune_steps,
        evaluate_every=0,
        checkpoint_every=8,
    ),
    batch_size=scale.rows,
    length=128,
    heldout_share=0.02,
    sample_questions=(),
    out=f"{scale.runs}/4_finetune",
)
