"""The config's type picks the entry."""

from functools import partial
from pathlib import Path

from jaxtrain import artifact
from jaxtrain.align.grpo import GRPOConfig, train_grpo
from jaxtrain.align.ppo import PPOConfig, train_policy
from jaxtrain.align.preference import PreferenceConfig, train_preferences
from jaxtrain.align.reward_model import RewardConfig, train_reward_model
from jaxtrain.tasks import human_preference

Config = RewardConfig | PPOConfig | GRPOConfig | PreferenceConfig
configs: tuple[type, ...] = (RewardConfig, PPOConfig, GRPOConfig, PreferenceConfig)


def run(config: Config) -> Path:
    """The artifact of docs/formats.md: a reward model, or a policy improved as the config's type says."""
    match config:
        case RewardConfig():
            human = human_preference.task.file(config.human)
            inputs = {"model": config.model, "ratings": config.ratings, "human": human}
            train = partial(train_reward_model, config)
        case PPOConfig():
            inputs = {"model": config.model, "reward": config.reward, "conversations": config.conversations}
            inputs |= {f"reward {n}": more.reward for n, more in enumerate(config.also, 2)}
            train = partial(train_policy, config)
        case GRPOConfig():
            inputs = {"model": config.model, "problems": config.problems, "heldout": config.heldout}
            train = partial(train_grpo, config)
        case PreferenceConfig():
            inputs = {"model": config.model, "ratings": config.ratings}
            train = partial(train_preferences, config)
    return artifact.produce(config, inputs, train, resume=True)
