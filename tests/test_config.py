"""A config file, its overrides, and what is said about a mistake in either."""

from pathlib import Path

import pytest

from jaxtrain import config as configs
from jaxtrain.pretrain.run import PretrainConfig
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.run import TokenizeConfig

CLEAN = "configs/quickstart/2_clean.py"
IMPORT = "from jaxtrain.tokenize.run import TokenizeConfig\n\n"
SOURCES = (
    "from jaxtrain.collect.chats import ChatSource\nfrom jaxtrain.collect.run import CollectConfig\n"
    "config = CollectConfig(sources={}, out='c')"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "3_tokenize.py"


def refused(file: Path, text: str) -> str:
    file.write_text(text)
    with pytest.raises(UserError) as error:
        configs.load(file)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_config_file_defines_a_stage(file: Path) -> None:
    file.write_text(IMPORT + "config = TokenizeConfig(documents='a', out='b', vocab_size=4096)")
    config = configs.load(file)
    assert config == TokenizeConfig(documents="a", out="b", vocab_size=4096)
    assert configs.stage_of(config) == "tokenize"


def test_a_misspelt_field_names_the_file_the_line_and_the_nearest(file: Path) -> None:
    message = refused(file, IMPORT + "config = TokenizeConfig(documents='a', out='b', vocabsize=4096)")
    assert message == f"{file}, line 3: TokenizeConfig has no field 'vocabsize'; did you mean 'vocab_size'?"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config = TokenizeConfig(documents='a')", "line 3: TokenizeConfig needs 'out'"),
        ("config = TokenizeConfig(", "line 3: SyntaxError: '(' was never closed"),
        ("config = Tokenise()", "line 3: NameError: name 'Tokenise' is not defined"),
        ("configuration = 3", "defines no `config`; end it with `config = ...Config(...)`"),
        ("config = TokenizeConfig", "defines no `config`"),
        (
            "from jaxtrain.model.config import ModelConfig\nconfig = ModelConfig()",
            "a ModelConfig configures no",
        ),
        ("import jaxtrain.tokenise", "line 3: ModuleNotFoundError: No module named 'jaxtrain.tokenise'"),
        ("open('absent.txt')", "line 3: FileNotFoundError"),
        ("config = TokenizeConfig(documents=3, out='b')", "documents is 3; it takes text"),
        ("config = TokenizeConfig(documents='a', out='b', vocab_size='4k')", "vocab_size is '4k'; it"),
        (SOURCES.format("ChatSource(name='a', paths=('b',))"), "sources is a ChatSource; it takes several"),
        (SOURCES.format("(ChatSource(name='a', paths='b*'),)"), "sources[0].paths is 'b*'; it takes several"),
        (
            "from jaxtrain.pretrain.run import PretrainConfig\n"
            "config = PretrainConfig(data='a', out='b', model='gpt2')",
            "model is 'gpt2'; it takes ModelConfig",
        ),
    ],
)
def test_a_broken_config_file_is_one_line(file: Path, text: str, words: str) -> None:
    message = refused(file, IMPORT + text)
    assert message.startswith(str(file)) and words in message


def test_an_absent_config_file_names_its_neighbour() -> None:
    with pytest.raises(UserError, match=r"no config file .*2_claen.py; did you mean .*2_clean.py\?"):
        configs.load("configs/quickstart/2_claen.py")
    with pytest.raises(UserError, match="see configs/"):
        configs.load("nowhere/at_all.py")


def test_overrides_reach_nested_fields_and_leave_the_rest() -> None:
    before = PretrainConfig(data="a", out="b")
    flags = ["--steps", "7", "--optimizer.lr=0.5", "--model.max-length", "64", "--model.qk_norm", "False"]
    after = configs.override(before, [*flags, "--sample_prompts", "x", "y z"])
    assert (after.train.steps, after.train.optimizer.lr, after.model.max_length) == (7, 0.5, 64)
    assert after.model.qk_norm is False and after.sample_prompts == ("x", "y z")
    assert (after.data, after.train.optimizer.beta2) == ("a", before.train.optimizer.beta2)
    assert before.train.steps == 400


def test_overrides_reach_into_dictionaries() -> None:
    after = configs.override(configs.load(CLEAN), ["--mixture.code", "0.5", "--balance.most_share", "0.9"])
    assert (after.mixture["code"], after.mixture["wiki"], after.balance.most_share) == (0.5, 0.4, 0.9)
    assert after.filters == configs.load(CLEAN).filters


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stepz", "3"], "PretrainConfig has no field --stepz; did you mean --train.steps?"),
        (["--model.layer", "3"], "did you mean --model.layers?"),
        (
            ["--steps", "three"],
            "Error parsing --train.steps: invalid literal for int() with base 10: 'three'; overrides",
        ),
        (["--steps"], "Missing value for argument '--train.steps'"),
        (["--optimizer.schedule", "x"], "Expected one of ('cosine', 'linear', 'constant', 'stable_decay')"),
        (["7"], "Unrecognized options: 7; overrides are --FIELD VALUE"),
    ],
)
def test_an_override_that_does_not_fit_is_one_line(arguments: list[str], words: str) -> None:
    with pytest.raises(UserError) as error:
        configs.override(PretrainConfig(data="a", out="b"), arguments)
    assert words in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 160


def test_a_list_of_configs_is_edited_in_the_file() -> None:
    with pytest.raises(UserError, match="--sources is a list of configs; edit it in the config file"):
        configs.override(configs.load("configs/quickstart/1_collect.py"), ["--sources", "3"])
    with pytest.raises(UserError, match="--filters.wiki is a list of configs; edit it in the config file"):
        configs.override(configs.load(CLEAN), ["--filters.wiki", "3"])


def test_the_resolved_config_is_json_with_class_names() -> None:
    resolved = configs.to_json(configs.load(CLEAN))
    assert resolved["class"] == "CleanConfig"
    classes = [step["class"] for step in resolved["filters"]["code"]]
    assert classes == ["Normalize", "Code", "Personal", "Quotes"]
    assert resolved["filters"]["code"][2]["kinds"] == ["email", "ip"]
