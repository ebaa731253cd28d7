"""jaxtrain finetune configs/arithmetic_grpo/5_finetune.py

Teaches it to answer a question with the sum alone.
"""

from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.optimizer import OptimizerConfig

config = FinetuneConfig(
    model="runs/arithmetic_grpo/4_pretrain",
    data="runs/arithmetic_grpo/3_tokenize",
    optimizer=OptimizerConfig(
        lr=2e-3, warmup_steps=10, schedule="linear", final_lr_share=0.1, weight_decay=0.1
    ),
    mesh=MeshConfig(fsdp=-1),
    steps=100,
    batch_size=32,
    evaluate_every=50,
    checkpoint_every=50,
    sample_questions=("23+45", "99+99"),
    out="runs/arithmetic_grpo/5_finetune",
)
