"""jaxtrain reward configs/assistant_people/6_reward.py

The model reads every answer once, and a scalar head learns from what it says at the last token. Rate and
passes were chosen by five parts of the training pairs. Result of the first 1,088 of 1,596 training pairs on
all 707 held out, all that has been read yet: 62.5 % (standard error 1.8) ordered as people did, where the
shorter answer alone has 53.3 %; the difference is 9.3 points, 95 % interval 4.9 to 13.6, which excludes 0.
"""

from jaxtrain.align.run import RewardConfig
from jaxtrain.config import scaled
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig

scale = scaled(__file__)

config = RewardConfig(
    model=scale.model,
    ratings=f"{scale.runs}/5_rate",
    train=TrainConfig(
        optimizer=OptimizerConfig(lr=1e-3, warmup_steps=10, schedule="linear", weight_decay=0.1),
        evaluate_every=0,
        checkpoint_every=1000,
    ),
    trunk="frozen",
    center=0.01,
    epochs=scale.reward_epochs,
    batch_prompts=64,
    length=64,
    out=f"{scale.runs}/6_reward",
)
