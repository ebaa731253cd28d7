"""What a run says about its data, and refuses, before it starts."""

from pathlib import Path

import pytest

from jaxtrain import config as configs
from jaxtrain.feed.documents import Phase
from jaxtrain.model.config import ModelConfig
from jaxtrain.pretrain.run import PretrainConfig, run
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize import Tokenizer
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig


@pytest.fixture
def config(tokens, tmp_path: Path) -> PretrainConfig:
    size = Tokenizer.load(Path(tokens) / "tokenizer").vocab_size
    model = ModelConfig(
        vocab_size=size, layers=1, d_model=16, heads=1, kv_heads=1, head_dim=16, max_length=32
    )
    return PretrainConfig(
        data=str(tokens),
        out=str(tmp_path / "out"),
        model=model,
        train=TrainConfig(optimizer=OptimizerConfig(), steps=10_000),
    )


def test_a_source_read_too_often_is_refused_with_the_steps_that_are_enough(config: PretrainConfig) -> None:
    with pytest.raises(UserError, match=r"10000 steps read .* times .* raise max_epochs = 4") as refused:
        run(config)
    enough = int(str(refused.value).split("at most ")[1].split()[0])
    longer = configs.changed(config, max_epochs=8.0)
    with pytest.raises(UserError, match="take at most") as refused:
        run(longer)
    assert int(str(refused.value).split("at most ")[1].split()[0]) == pytest.approx(2 * enough, abs=4)
    with pytest.raises(UserError, match="vocab_size"):
        run(configs.changed(config, train__steps=enough, model=ModelConfig(vocab_size=9, max_length=32)))


def test_a_curriculum_of_unknown_sources_is_refused(config: PretrainConfig) -> None:
    phases = (Phase(step=5, weights={"nowhere": 1.0}),)
    with pytest.raises(UserError, match="curriculum: no documents of nowhere"):
        run(configs.changed(config, train__steps=10, curriculum=phases))
