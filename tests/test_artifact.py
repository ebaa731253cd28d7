"""An artifact is whole or absent, is made again when anything it is made of changes, and only then."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaxtrain import artifact
from jaxtrain.runtime import progress
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.run import TokenizeConfig


def write(folder: Path) -> dict[str, Any]:
    (folder / "ids.bin").write_bytes(bytes(1000))
    return {"tokens": 500}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """`make(vocab_size=…)` produces `tmp_path/out` from `tmp_path/documents`."""
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").write_text("a document")

    def produce(write: Callable[[Path], dict[str, Any]] = write, resume: bool = False, **fields: Any) -> Path:
        config = TokenizeConfig(documents=str(tmp_path / "documents"), out=str(tmp_path / "out"), **fields)
        return artifact.produce(config, {"documents": config.documents}, write, resume=resume)

    return produce


@pytest.mark.parametrize("mode", ["fresh", "resume"])
def test_a_kill_at_any_moment_leaves_all_or_nothing_and_the_next_run_the_same_bytes(
    tmp_path: Path, mode: str
) -> None:
    script = Path(__file__).with_name("artifact_killed.py")
    done = subprocess.run([sys.executable, script, tmp_path, mode], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30


def test_the_manifest_says_what_it_is_made_of(make: Callable[..., Path]) -> None:
    manifest = artifact.read_manifest(make(vocab_size=300))
    assert manifest is not None
    assert set(manifest) == {
        "stage",
        "version",
        "config",
        "inputs",
        "artifacts",
        "fingerprint",
        "jaxtrain",
        "counts",
        "files",
    }
    assert manifest["stage"] == "tokenize" and manifest["counts"] == {"tokens": 500}
    assert manifest["config"]["vocab_size"] == 300 and "out" not in manifest["config"]
    # sha256 of a thousand zero bytes, by sha256sum
    zeros = "541b3e9daa09b20bf85fa273e5cbd3e80185aa4ec298e765db87742b70138a53"
    assert manifest["files"] == {"ids.bin": {"size": 1000, "sha256": zeros}}


def test_the_manifest_does_not_depend_on_where_the_work_was_done(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    here = (make() / "manifest.json").read_bytes()
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(tmp_path / "documents", tmp_path / "elsewhere" / "texts")
    config = TokenizeConfig(documents=str(tmp_path / "elsewhere" / "texts"), out=str(tmp_path / "other"))
    artifact.produce(config, {"documents": config.documents}, write)
    assert (tmp_path / "other" / "manifest.json").read_bytes() == here
    assert str(tmp_path).encode() not in here


def test_what_stands_is_reused(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = make()
    inode = (out / "ids.bin").stat().st_ino
    assert make(write=lambda folder: pytest.fail("written again")) == out
    assert (out / "ids.bin").stat().st_ino == inode
    assert f"tokenize: reused {out}" in capsys.readouterr().err.replace("\n", "")


def test_a_change_is_named_and_the_artifact_made_again(
    make: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(vocab_size=300)
    assert artifact.read_manifest(make(vocab_size=301))["config"]["vocab_size"] == 301
    assert "out of date (vocab_size 300 → 301)" in capsys.readouterr().err
    (tmp_path / "documents" / "a.txt").write_text("another document")
    make(vocab_size=301)
    assert "(input documents has changed)" in capsys.readouterr().err


def test_a_file_cut_short_is_noticed(make: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    out = make()
    (out / "ids.bin").write_bytes(bytes(999))
    make()
    assert "out of date (ids.bin was changed since it was written)" in capsys.readouterr().err
    assert (out / "ids.bin").stat().st_size == 1000
    assert not Path(f"{out}.old").exists()


def test_only_a_resumable_run_of_the_same_fingerprint_goes_on(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    def interrupted(folder: Path) -> dict[str, Any]:
        (folder / "checkpoint").write_text("half way")
        raise KeyboardInterrupt

    def found(folder: Path) -> dict[str, Any]:
        return {"found": (folder / "checkpoint").is_file()}

    def go(resume: bool, vocab_size: int) -> bool:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        with pytest.raises(KeyboardInterrupt):
            make(write=interrupted, vocab_size=300)
        out = make(write=found, resume=resume, vocab_size=vocab_size)
        assert not (out / artifact.STARTED).exists()
        return artifact.read_manifest(out)["counts"]["found"]

    assert go(resume=True, vocab_size=300)
    assert not go(resume=False, vocab_size=300)
    assert not go(resume=True, vocab_size=301)


def test_a_second_run_is_kept_out_of_a_folder_where_one_is_at_work(
    make: Callable[..., Path], tmp_path: Path
) -> None:
    second = (
        "import sys; from jaxtrain import artifact; from jaxtrain.tokenize.run import TokenizeConfig\n"
        "config = TokenizeConfig(documents=sys.argv[1], out=sys.argv[2])\n"
        "artifact.produce(config, {'documents': config.documents}, lambda folder: {}, resume=True)\n"
    )

    def meanwhile(folder: Path) -> dict[str, Any]:
        (folder / "first").write_text("of the first run")
        arguments = [sys.executable, "-c", second, str(tmp_path / "documents"), str(tmp_path / "out")]
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode != 0 and f"another run is at work in {folder}" in done.stderr
        return {"files": len([path for path in folder.iterdir() if path.name == "first"])}

    out = make(write=meanwhile)
    assert artifact.read_manifest(out)["counts"] == {"files": 1}
    assert sorted(path.name for path in out.iterdir()) == ["cost.json", "first", "manifest.json"]


def test_where_a_file_system_has_no_locks_the_run_says_so_and_goes_on(
    make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lockf(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert artifact.read_manifest(make()) is not None
    assert "no locks on this file system (No locks available)" in " ".join(capsys.readouterr().err.split())


def test_the_cost_is_the_sum_over_restarts(make: Callable[..., Path], tmp_path: Path) -> None:
    def interrupted(folder: Path) -> dict[str, Any]:
        started = (folder / artifact.STARTED).stat().st_mtime
        (folder / "checkpoint").touch()
        os.utime(folder / "checkpoint", (started + 70, started + 70))  # the last sign of life
        raise KeyboardInterrupt

    for _ in range(2):  # the second begins afresh, and the first is counted nevertheless
        with pytest.raises(KeyboardInterrupt):
            make(write=interrupted)
    out = make(resume=True)
    cost = json.loads((out / artifact.COST).read_text())
    assert 140 <= cost["seconds"] < 150 and cost["restarts"] == 2


def test_an_absent_input_is_one_line_with_the_remedy(make: Callable[..., Path], tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    shutil.rmtree(documents)
    with pytest.raises(
        UserError, match=rf"^input documents: {documents} does not exist; write it first with"
    ):
        make()
    (tmp_path / "documents.partial").mkdir()
    with pytest.raises(UserError, match="its stage was interrupted: run it again"):
        make()


def test_an_input_must_come_from_the_stage_that_is_needed(make: Callable[..., Path], tmp_path: Path) -> None:
    out = make()
    assert artifact.require(out, "tokenize")["stage"] == "tokenize"
    with pytest.raises(UserError, match="was written by tokenize, but a clean artifact is needed here"):
        artifact.require(out, "clean")
    with pytest.raises(
        UserError, match=r"no finished clean artifact at .*; write it first with `jaxtrain clean"
    ):
        artifact.require(tmp_path / "nowhere", "clean")


def test_a_folder_counts_by_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "x.txt").write_text("x")
    (tmp_path / "a" / "__pycache__").mkdir()
    (tmp_path / "a" / "__pycache__" / "x.pyc").write_text("compiled")
    assert artifact.input_fingerprint(tmp_path / "a") == artifact.input_fingerprint(tmp_path / "b")
    (tmp_path / "b" / "sub" / "x.txt").rename(tmp_path / "b" / "sub" / "y.txt")
    assert artifact.input_fingerprint(tmp_path / "a") != artifact.input_fingerprint(tmp_path / "b")


def test_progress_in_a_log_is_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("[1/9] collect  <input>")
    assert capsys.readouterr().err == "[1/9] collect  <input>\n"
