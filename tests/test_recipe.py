"""`jaxtrain init`, `runs` and `doctor`: a recipe of one's own, and what came of it."""

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from jaxtrain import artifact, cli, recipe, runs
from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError

RECIPES = sorted(path.name for path in (recipe.SHIPPED / "configs").iterdir())


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_of_ones_own_writes_to_runs_of_its_own_name(name, tmp_path, monkeypatch):
    """Copied and renamed, too: none of its artifacts goes where another recipe's are."""
    monkeypatch.chdir(tmp_path)
    recipe.init(recipe.InitConfig(name="mine", from_=name))
    shutil.copytree("mine", "copy")
    for folder in ("mine", "copy"):
        files = sorted(Path(folder).glob("*.py"))
        assert files
        for file in files:
            config = configs.load(file)
            own = f"{folder}-{config.scale}" if config.scale else folder
            assert Path(config.out).parent == Path("runs") / own
            assert file.read_text().splitlines()[0].endswith(f" mine/{file.name}")
    with pytest.raises(UserError, match="mine exists; choose another name"):
        recipe.init(recipe.InitConfig(name="mine", from_=name))


def test_the_data_of_a_recipe_come_along(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["init", "mine", "--from", "tiny"])
    told = capsys.readouterr().err
    assert "data/quickstart written" in told and "`jaxtrain run mine` runs it, into runs/mine" in told
    sources = configs.load("mine/1_collect.py").sources
    assert all(Path(path).is_file() for source in sources for path in getattr(source, "paths", ()))
    with pytest.raises(SystemExit):
        cli.main(["init", "other", "--from", "tony"])
    assert f"there are {', '.join(RECIPES)}" in capsys.readouterr().err


def stage(folder: Path, name: str, fingerprint: str, **inputs: str) -> None:
    made = {"stage": name, "version": 1, "fingerprint": fingerprint, "inputs": inputs}
    (folder / "manifest.json").parent.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(made | {"artifacts": list(inputs)}))


def test_runs_says_what_stands_and_clean_asks(tmp_path, monkeypatch, capsys):
    stage(tmp_path / "a/1_collect", "collect", "new")
    stage(tmp_path / "a/1_collect.old.1", "collect", "old")
    stage(tmp_path / "a/2_clean", "clean", "two", documents="old")
    stage(tmp_path / "b/3_tokenize", "tokenize", "three", documents="two")
    stage(tmp_path / "b/4_tokenize", "tokenize", "four", documents="new")
    (tmp_path / "b/5_pretrain.partial").mkdir()
    (tmp_path / "b/5_pretrain.partial" / artifact.STARTED).write_text("{}")
    states = {
        path.relative_to(tmp_path).as_posix(): state for path, (_, state) in runs.find(tmp_path).items()
    }
    assert states == {
        "a/1_collect": "stands",
        "a/1_collect.old.1": "set aside",
        "a/2_clean": "stale: its documents stands here no more",
        "b/3_tokenize": "stale: its documents stands here no more",
        "b/4_tokenize": "stands",
        "b/5_pretrain.partial": "unfinished: the same command goes on with it",
    }
    monkeypatch.setattr("builtins.input", lambda question: "n")
    cli.main(["runs", str(tmp_path), "--clean"])
    assert "3 stale or set aside" in capsys.readouterr().out and (tmp_path / "a/2_clean").exists()
    monkeypatch.setattr("builtins.input", lambda question: "y")
    cli.main(["runs", str(tmp_path), "--clean"])
    assert {path.name for path in tmp_path.glob("*/*")} == {"1_collect", "4_tokenize", "5_pretrain.partial"}


def test_doctor_names_devices_and_what_is_missing(capsys, monkeypatch):
    installed = metadata.requires

    def without_sqlalchemy(package: str) -> list[str] | None:
        if package == "sqlalchemy":
            raise metadata.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(metadata, "requires", without_sqlalchemy)
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert "(cpu)" in out and "float32" in out and "attention" in out
    assert "`pip install 'jaxtrain[rate]'` for sqlalchemy\n" in out and "extra data        installed" in out


def test_a_missing_extra_is_one_line_with_its_name():
    line = configs.missing_extra(ModuleNotFoundError("", name="resiliparse.extract"))
    assert line == "this needs resiliparse, which is not installed: `pip install 'jaxtrain[data]'`"
    assert configs.missing_extra(ModuleNotFoundError("", name="jaxtrain.nothing")) is None
