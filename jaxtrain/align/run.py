"""The config's type picks the entry: a reward model, PPO against it, or a policy from comparisons alone."""

from functools import partial
from pathlib import Path

from jaxtrain import artifact
from jaxtrain.align.ppo import PPOConfig, train_policy
from jaxtrain.align.preference import PreferenceConfig, train_preferences
from jaxtrain.align.reward_model import RewardConfig, train_reward_model
from jaxtrain.tasks import human_preference

configs: tuple[type, ...] = (RewardConfig, PPOConfig, PreferenceConfig)


def run(config: RewardConfig | PPOConfig | PreferenceConfig) -> Path:
    if isinstance(config, PreferenceConfig):
        inputs = {"model": config.model, "ratings": config.ratings}
        return artifact.produce(config, inputs, partial(train_preferences, config), resume=True)
    if isinstance(config, RewardConfig):
        inputs = {
            "model": config.model,
            "ratings": config.ratings,
            "human": human_preference.task.file(config.human),
        }
        return artifact.produce(config, inputs, partial(train_reward_model, config), resume=True)
    inputs = {"model": config.model, "reward": config.reward, "conversations": config.conversations}
    return artifact.produce(config, inputs, partial(train_policy, config), resume=True)
