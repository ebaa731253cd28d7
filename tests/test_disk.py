"""A full disk, a folder that nobody may write, an `out` that is none: one line, and nothing is lost."""

import contextlib
import io
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from stage_run import finish, start
from tiny_run import CONFIGS, runs, tiny, workplace

from jaxtrain import artifact, cli

__all__ = ["tiny"]
CLASSIFY = """
from jaxtrain.classify.run import ClassifyConfig, Examples, Training
of = lambda name: Examples(label=name, paths=(f"runs/tiny/2_clean/documents/{name}.parquet",))
training = Training(table_bits=12, epochs=1)
config = ClassifyConfig(examples=(of("web"), of("code")), training=training, out="out")
"""
STAGES = {
    "collect": "1_collect",
    "classify": "classify",
    "clean": "2_clean",
    "tokenize": "3_tokenize",
    "pretrain": "4_pretrain",
    "finetune": "5_finetune",
    "rate": "6_rate",
    "align": "7_reward",
    "evaluate": "9_evaluate",
    "report": "10_report",
}
MOST = {name: 8_000 if name == "evaluate" else 16_000 for name in STAGES}
"""Bytes of a file on the full disk: fewer than a stage's largest, more than what it begins with."""
TRAINED = ("pretrain", "finetune", "rate", "align", "evaluate")


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: what the stages read, and room for what they write."""
    folder = workplace(tmp_path / "place")
    runs(folder).parent.mkdir(parents=True)
    runs(folder).symlink_to(runs(tiny))
    (folder / "classify.py").write_text(CLASSIFY)
    monkeypatch.chdir(folder)
    yield folder


def command(stage: str, out: str) -> list[str]:
    name = STAGES[stage]
    return [stage, "classify.py" if stage == "classify" else str(CONFIGS / f"{name}.py"), "--out", out]


def run(arguments: list[str], folder: Path | None = None, most: int = 0) -> tuple[int, str]:
    """The command's status and what it said; in a process of its own it leaves both in `said.json`.

    most: bytes of a file.
    """
    if folder is not None:
        os.chdir(folder)
    said = io.StringIO()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            if most:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
            cli.main(arguments)
            status = 0
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    if folder is not None:
        Path("said.json").write_text(json.dumps([status, said.getvalue()]))
    return status, said.getvalue()


def line(said: str) -> str:
    """The one that tells what is wrong."""
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("jaxtrain: ")]
    assert len(lines) == 1 and said.splitlines()[-1] == lines[0], said
    return lines[0]


@pytest.mark.parametrize(
    "stage", [pytest.param(name, marks=[pytest.mark.slow] * (name in TRAINED)) for name in STAGES]
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(place: Path, stage: str) -> None:
    finish(start(run, command(stage, "full"), place, MOST[stage]))
    status, said = json.loads(Path("said.json").read_text())
    assert status == 2 and "no space is left" in line(said), said
    assert not Path("full").exists(), "half an artifact has no name"
    finish(start(run, command(stage, "full"), place))
    status, said = json.loads(Path("said.json").read_text())
    assert status == 0, said
    made, wanted = (artifact.read_manifest(at) for at in ("full", runs(place) / STAGES[stage]))
    assert made is not None and not Path("full.partial").exists()
    assert wanted is None or made["fingerprint"] == wanted["fingerprint"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_out_that_cannot_be_written_is_one_line_before_anything_is_done(place: Path, stage: str) -> None:
    Path("file").write_text("mine")
    for out, words in {
        "file": "file is a file; name another folder",
        "file/below": "name another folder",
        "/sys/below": "name another folder",
        "..": "names no folder of its own",
        "a" * 300: "File name too long; name another folder",
    }.items():
        status, said = run(command(stage, out))
        assert status == 2 and words in line(said), (out, said)
    assert Path("file").read_text() == "mine" and {path.name for path in place.iterdir()} == {
        *("data", "runs", "classify.py", "file")
    }
