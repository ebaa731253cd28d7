"""`jaxtrain run FOLDER` runs numbered configs in order, and again only what changed."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from stage_run import free_port

from jaxtrain import pipeline
from jaxtrain.runtime.errors import UserError

BOOK = """\
from jaxtrain.collect.books import BookSource
from jaxtrain.collect.run import CollectConfig

config = CollectConfig(sources=(BookSource(name="book", paths=({text!r},)),), out={out!r})
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Two configs, `2_collect.py` and `10_collect.py`, and a file that is not numbered."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    text = tmp_path / "book.txt"
    text.write_text("CHAPTER I\n\n" + "It was a bright cold day in the north. " * 40)
    for number in (2, 10):
        config = BOOK.format(text=str(text), out=str(tmp_path / "runs" / str(number)))
        (folder / f"{number}_collect.py").write_text(config)
    (folder / "notes.py").write_text("raise SystemExit('a file without a number is run')")
    return folder


def test_configs_run_by_number_and_what_stands_is_reused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifacts = pipeline.run(recipe)
    assert artifacts == [tmp_path / "runs" / "2", tmp_path / "runs" / "10"]
    told = capsys.readouterr().err
    assert told.index("[1/2] collect") < told.index("[2/2] collect") and "reused" not in told
    assert told.endswith(f"s: {artifacts[-1]}\nnext: `jaxtrain report {tmp_path / 'runs'}`\n")
    times = [(path / "manifest.json").stat().st_mtime_ns for path in artifacts]

    (tmp_path / "runs" / "10" / "manifest.json").unlink()
    pipeline.run(recipe)
    assert capsys.readouterr().err.count("reused") == 1
    assert (artifacts[0] / "manifest.json").stat().st_mtime_ns == times[0]
    assert (artifacts[1] / "manifest.json").stat().st_mtime_ns != times[1]


def test_a_mistake_in_the_last_config_shows_before_the_first_runs(recipe: Path, tmp_path: Path) -> None:
    last = recipe / "10_collect.py"
    last.write_text(last.read_text().replace("out=", "outt="))
    with pytest.raises(
        UserError, match=r"10_collect.py, line 4: CollectConfig has no field 'outt'; did you mean"
    ):
        pipeline.run(recipe)
    assert not (tmp_path / "runs").exists()


def test_a_folder_without_numbered_configs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds no numbered configs .*; `jaxtrain init NAME --from quickstart`"
    ):
        pipeline.run(tmp_path)


def test_the_quickstart_is_the_whole_pipeline_in_order() -> None:
    root = Path(__file__).parents[1] / "configs" / "quickstart"
    names = [path.stem for path in pipeline.config_files(root)]
    assert [name.split("_")[0] for name in names] == [str(n) for n in range(1, len(names) + 1)]
    assert names[:3] == ["1_collect", "2_clean", "3_tokenize"]


def test_of_two_processes_the_first_makes_data_and_the_other_waits(recipe: Path, tmp_path: Path) -> None:
    """And both end where the first one fails."""
    (tmp_path / "book.txt").rename(tmp_path / "kept.txt")
    first, second = together(["run", str(recipe)])
    assert (first.returncode, second.returncode != 0) == (2, True), first.told + second.told
    assert "book.txt" in first.told.splitlines()[-1] and "another task died" in second.told

    (tmp_path / "kept.txt").rename(tmp_path / "book.txt")
    first, second = together(["run", str(recipe)])
    assert (first.returncode, second.returncode) == (0, 0), first.told + second.told
    assert "collect book" in first.told and "collect book" not in second.told
    assert "finished" in second.told and (tmp_path / "runs" / "10" / "manifest.json").is_file()


class Ended(NamedTuple):
    returncode: int
    told: str


def together(arguments: list[str]) -> list[Ended]:
    """The command in two processes."""
    cluster = {"JAXTRAIN_COORDINATOR": f"127.0.0.1:{free_port()}", "JAXTRAIN_PROCESSES": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "jaxtrain", *arguments],
            env=os.environ | cluster | {"JAXTRAIN_PROCESS": number},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in "01"
    ]
    told = [process.communicate()[1] for process in started]
    return [Ended(process.returncode, text) for process, text in zip(started, told, strict=True)]
