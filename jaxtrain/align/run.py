"""The config's type picks the entry."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from jaxtrain.align.comparisons import PEOPLE
from jaxtrain.align.distill import DistillConfig, train_distilled
from jaxtrain.align.grpo import GRPOConfig, train_grpo
from jaxtrain.align.ppo import PPOConfig, train_policy
from jaxtrain.align.preference import PreferenceConfig, train_preferences
from jaxtrain.align.reward_model import RewardConfig, train_reward_model
from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import hub
from jaxtrain.tasks.catalog import files, find
from jaxtrain.train.context import produce

Config = RewardConfig | PPOConfig | GRPOConfig | PreferenceConfig | DistillConfig


def run(config: Config) -> Path:
    """The artifact of docs/formats.md: a reward model, or a policy improved as the config's type says."""
    match config:
        case RewardConfig():
            inputs = {"model": config.model, **_comparisons(config)}
            inputs |= {"human": str(Path(config.human) / PEOPLE)} if config.human else {}
            train = partial(train_reward_model, config)
        case PPOConfig():
            inputs = {"model": config.model, "reward": config.reward, "conversations": config.conversations}
            inputs |= {f"reward {n}": more.reward for n, more in enumerate(config.also, 2)}
            train = partial(train_policy, config)
        case GRPOConfig():
            if config.data == "hub":
                config = replace(config, data=hub.fetch([*map(find, config.tasks)], distributed.join()))
            inputs = {"model": config.model} | files(config.tasks, config.data)
            train = partial(train_grpo, config)
        case PreferenceConfig():
            inputs = {"model": config.model, **_comparisons(config)}
            train = partial(train_preferences, config)
        case DistillConfig():
            inputs = {"model": config.model, "teacher": config.teacher, "conversations": config.conversations}
            train = partial(train_distilled, config)
    return produce(config, inputs, train)


def _comparisons(config: RewardConfig | PreferenceConfig) -> dict[str, str]:
    if bool(config.ratings) == bool(config.preferences):
        raise UserError("give `ratings`, a rate artifact, or `preferences`, a file: one of the two")
    return {"preferences": config.preferences} if config.preferences else {"ratings": config.ratings}
