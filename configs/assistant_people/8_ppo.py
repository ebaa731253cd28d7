"""jaxtrain ppo configs/assistant_people/8_ppo.py

Rounds against the reward model, from where DPO ended. The reward is a proxy: whether people like the answers
better is not measured. Not run at this size yet.
"""

from jaxtrain.align.run import PPOConfig
from jaxtrain.config import scaled
from jaxtrain.model.lora import LoRAConfig
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = PPOConfig(
    model=f"{scale.runs}/7_dpo",
    reward=f"{scale.runs}/6_reward",
    conversations=f"{scale.runs}/2_clean",
    lora=LoRAConfig(rank=16, alpha=32.0),
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-4, warmup_steps=2, schedule="constant", weight_decay=0.0),
        steps=scale.ppo_steps,
        evaluate_every=0,
        checkpoint_every=8,
    ),
    rollouts=scale.rollouts,
    epochs=2,
    minibatches=2,
    longest_prompt=scale.prompt,
    max_new=scale.answer,
    kl_weight=0.05,
    measured=scale.measured,
    sample_questions=(),
    out=f"{scale.runs}/8_ppo",
)
