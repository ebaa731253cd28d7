"""The config's type picks the entry: RewardConfig trains a reward model, PPOConfig a policy."""

from functools import partial
from pathlib import Path

from jaxtrain import artifact
from jaxtrain.align.ppo import PPOConfig, train_policy
from jaxtrain.align.reward_model import RewardConfig, train_reward_model
from jaxtrain.tasks import human_preference

configs: tuple[type, ...] = (RewardConfig, PPOConfig)


def run(config: RewardConfig | PPOConfig) -> Path:
    if isinstance(config, RewardConfig):
        inputs = {
            "model": config.model,
            "ratings": config.ratings,
            "human": human_preference.task.file(config.human),
        }
        return artifact.produce(config, inputs, partial(train_reward_model, config), resume=True)
    inputs = {"model": config.model, "reward": config.reward, "conversations": config.conversations}
    return artifact.produce(config, inputs, partial(train_policy, config), resume=True)
