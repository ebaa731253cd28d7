"""Numbers of configs: what each may be, and the line that says so."""

import dataclasses
from typing import Any

import pytest

from jaxtrain import cli, fields
from jaxtrain import config as configs
from jaxtrain.align.run import GRPOConfig, PPOConfig, PreferenceConfig, RewardConfig
from jaxtrain.finetune.run import FinetuneConfig
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.errors import UserError

PATHS = dict.fromkeys(("data", "out"), "nowhere")
CONFIGS: dict[str, Any] = {
    "pretrain": PretrainConfig(**PATHS),
    "finetune": FinetuneConfig(**PATHS, model="nowhere"),
    "reward": RewardConfig(**dict.fromkeys(("model", "ratings", "human", "out"), "nowhere")),
    "preference": PreferenceConfig(**dict.fromkeys(("model", "ratings", "out"), "nowhere")),
    "ppo": PPOConfig(**dict.fromkeys(("model", "reward", "conversations", "out"), "nowhere")),
    "grpo": GRPOConfig(tasks=("nowhere",), **dict.fromkeys(("model", "out"), "nowhere")),
}


@pytest.mark.parametrize(
    ("stage", "changed", "words"),
    [
        ("pretrain", {"train__steps": 0}, "train.steps is 0; this stage needs a number"),
        ("pretrain", {"train__steps": -1}, "train.steps is -1; it is at least 0"),
        ("finetune", {"train__steps": 0}, "train.steps is 0"),
        ("pretrain", {"train__microbatches": 0}, "train.microbatches is 0; it is at least 1"),
        ("pretrain", {"heldout_batches": 0}, "heldout_batches is 0; it is at least 1"),
        ("pretrain", {"batch_size": 0}, "batch_size is 0; it is at least 1"),
        ("pretrain", {"model__layers": 0}, "model.layers is 0; it is at least 1"),
        ("pretrain", {"train__profile": -1}, "train.profile is -1; it is at least 0"),
        ("pretrain", {"train__early_stop": -1}, "train.early_stop is -1; it is at least 0"),
        ("pretrain", {"train__optimizer__lr": 0.0}, "train.optimizer.lr is 0; it is above 0"),
        ("pretrain", {"train__optimizer__lr": float("nan")}, "train.optimizer.lr is nan; it is above 0"),
        ("pretrain", {"train__optimizer__clip_norm": -1.0}, "train.optimizer.clip_norm is -1"),
        ("pretrain", {"train__optimizer__warmup_steps": -5}, "train.optimizer.warmup_steps is -5"),
        ("pretrain", {"train__optimizer__average": 1.0}, "train.optimizer.average is 1; .* below 1"),
        ("pretrain", {"train__optimizer__beta1": 1.0}, "train.optimizer.beta1 is 1; .* below 1"),
        ("pretrain", {"train__safety__keep__last": 1}, "train.safety.keep.last is 1; it is at least 2"),
        ("pretrain", {"train__safety__keep__best": False, "train__early_stop": 1}, "early_stop needs"),
        ("pretrain", {"train__mesh__fsdp": 0}, "every axis is at least 1"),
        ("pretrain", {"train__mesh__tensor": -1}, "at most one may be -1"),
        ("reward", {"epochs": 0.0}, "epochs is 0; it is above 0"),
        ("reward", {"length": 1}, "length is 1; it is at least 2"),
        ("preference", {"label_smoothing": 0.5}, "label_smoothing is 0.5; .* below 0.5"),
        ("preference", {"kind": "ipo", "beta": 0.0}, "beta is 0; ipo asks for margins"),
        ("ppo", {"max_new": 0}, "max_new is 0; it is at least 1"),
        ("grpo", {"measured": 0}, "measured is 0; it is at least 1"),
        ("grpo", {"rewards": {"exact": 0.0}}, "rewards gives every answer 0"),
    ],
)
def test_a_number_out_of_its_limits_is_named(stage: str, changed: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        fields.check(configs.changed(CONFIGS[stage], **changed))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_intervals_of_0_are_never_and_a_weight_may_be_negative(config: Any) -> None:
    train = {"evaluate_every": 0, "checkpoint_every": 0, "log_every": 0, "profile": 0, "early_stop": 0}
    fields.check(configs.changed(config, train=dataclasses.replace(config.train, **train)))
    if isinstance(config, GRPOConfig):
        fields.check(dataclasses.replace(config, rewards={"exact": -1.0}))


def test_it_is_one_line_before_any_data_are_read(tmp_path, capsys) -> None:
    file = tmp_path / "4_pretrain.py"
    file.write_text(
        "from jaxtrain.pretrain.run import PretrainConfig\n"
        "config = PretrainConfig(data='nowhere', out='nowhere')\n"
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["pretrain", str(file), "--clip_norm", "-1"])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert told == "jaxtrain: train.optimizer.clip_norm is -1; it is at least 0\n"


@dataclasses.dataclass(frozen=True)
class OfTheirOwn:
    limit: float = -3.0


def test_a_class_of_a_user_has_the_numbers_that_it_likes() -> None:
    fields.check(OfTheirOwn())
