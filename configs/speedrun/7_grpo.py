"""jaxtrain grpo configs/speedrun/7_grpo.py

GSM8K's training problems once, 16 answers to each. `data="hub"` needs the extra `eval`.
"""

from jaxtrain.align.run import GRPOConfig
from jaxtrain.config import scaled
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = GRPOConfig(
    model=f"{scale.runs}/6_finetune",
    tasks=("gsm8k_chat",),
    data=scale.benchmarks,
    kind="dapo",
    advantage="dr_grpo",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=2e-6, warmup_steps=2, schedule="constant", weight_decay=0.0),
        mesh=MeshConfig(fsdp=-1),
        dtype=scale.dtype,
        steps=scale.grpo_steps,
        microbatches=scale.microbatches,
        evaluate_every=60,
        checkpoint_every=60,
    ),
    prompts=scale.prompts,
    group=16,
    longest_prompt=scale.prompt,
    max_new=scale.answer,
    measured=scale.items,
    out=f"{scale.runs}/7_grpo",
)
