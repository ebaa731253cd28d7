"""An artifact is what its manifest says, or it is refused by name before anything is made of it."""

import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pytest
from tiny_run import CONFIGS, runs, tiny, workplace

from jaxtrain import artifact, document, integrity
from jaxtrain import config as configs
from jaxtrain.collect.books import BookSource
from jaxtrain.collect.run import CollectConfig, run
from jaxtrain.document import Document
from jaxtrain.feed.sources import TokenData
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.weights import folder as weights

__all__ = ["tiny"]


def flip(file: Path, at: int | None = None, bit: int = 0) -> None:
    """Change one bit, in the middle of the file if nothing is said."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1 << bit
    file.write_bytes(data)


@pytest.fixture
def collect(tmp_path: Path) -> CollectConfig:
    """The config of one book of two chapters."""
    chapter = "It was a bright cold day in the north. " * 40
    (tmp_path / "book.txt").write_text(f"CHAPTER I\n\n{chapter}\n\nCHAPTER II\n\n{chapter} The end.")
    source = BookSource(name="book", paths=(str(tmp_path / "book.txt"),))
    return CollectConfig(sources=(source,), out=str(tmp_path / "out"))


def test_a_changed_byte_of_a_manifest_is_noticed(collect: CollectConfig) -> None:
    file = run(collect) / "manifest.json"
    whole = file.read_bytes()
    for at in range(0, len(whole), 5):
        flip(file, at, bit=at % 7)
        try:
            made = artifact.read_manifest(file.parent)
        except UserError as refused:
            assert str(refused).startswith(f"{file} was ")
        else:  # the key of the hash itself: nothing else can be wrong
            assert made is not None and made["files"] == json.loads(whole)["files"]
        file.write_bytes(whole)


@pytest.mark.parametrize("text", ["", "{}", '{"a', "[]", "null"])
def test_a_cut_manifest_is_refused_by_readers_and_made_again_by_its_stage(
    collect: CollectConfig, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(collect)
    whole = (out / "manifest.json").read_bytes()
    (out / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json was cut or changed; make it again: `jaxtrain"):
        artifact.require(out, "collect")
    assert run(collect) == out and (out / "manifest.json").read_bytes() == whole
    assert "is out of date (manifest.json was changed since it was written)" in capsys.readouterr().err
    assert {path.name for path in out.parent.iterdir()} == {"out", "book.txt"}


def test_a_file_that_nobody_wrote_is_named(collect: CollectConfig) -> None:
    out = run(collect)
    shutil.copy(out / "documents" / "book.parquet", out / "documents" / "extra.parquet")
    (out / ".DS_Store").touch()
    for reads in (lambda: integrity.check(out), lambda: run(collect)):
        with pytest.raises(UserError, match=r"extra.parquet is not in its manifest; move it elsewhere"):
            reads()
    (out / "documents" / "extra.parquet").unlink()
    integrity.check(out)


def test_240_flips_in_parquet_give_the_same_text_or_one_line(tmp_path: Path) -> None:
    """Of a file by itself: half of them in its footer, the only part without checksums."""
    random.seed(0)
    words = list("abcdefghijklmnop")
    texts = [" ".join(random.choices(words, k=120)) for _ in range(300)]
    records = [Document(id=f"{n:016x}", text=text, source="book") for n, text in enumerate(texts)]
    file = tmp_path / "book.parquet"
    columns = document.schema(Document, {"words": pa.int64()})
    document.write_rows(file, columns, ({**document.to_row(record), "words": 120} for record in records))
    whole = file.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for number in range(240):
        flip(file, random.randrange(footer if number % 2 else 0, len(whole)), random.randrange(8))
        try:
            rows = list(document.read_rows(file))
        except UserError as error:
            refused += 1
            assert str(error).startswith(f"{file} is not a readable Parquet file (") and "\n" not in str(
                error
            )
        else:
            assert [row["text"] for row in rows] == texts, "other text"
        file.write_bytes(whole)
    assert refused > 120


READERS = {
    "1_collect": "2_clean",
    "2_clean": "3_tokenize",
    "3_tokenize": "4_pretrain",
    "4_pretrain": "5_finetune",
    "5_finetune": "6_rate",
    "6_rate": "7_reward",
    "7_reward": "8_ppo",
    "8_ppo": "9_evaluate",
    "9_evaluate": "10_report",
}


@pytest.fixture
def copied(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished recipe, to be damaged; it is the working directory."""
    folder = workplace(tmp_path / "copied")
    shutil.copytree(tiny / "runs", folder / "runs")
    monkeypatch.chdir(folder)
    return runs(folder)


def stage(name: str, *flags: str) -> Path:
    """Run one config of the recipe."""
    config = configs.override(configs.load(CONFIGS / f"{name}.py"), list(flags))
    room = configs.room_of(config)
    assert room is not None
    return room.run(config)


def test_every_file_of_every_stage_is_compared_before_it_is_used(copied: Path) -> None:
    """One of each kind: by the folder it lies in and the end of its name."""
    compared = 0
    for name, reader in READERS.items():
        files = [path.relative_to(copied / name) for path in (copied / name).rglob("*") if path.is_file()]
        compared_here = [path for path in files if not integrity.is_read_later(path.as_posix())]
        kinds = {(path.parts[0], path.suffix): path.as_posix() for path in compared_here}
        for inside in set(kinds.values()) - {"cost.json"}:
            file = copied / name / inside
            whole, compared = file.read_bytes(), compared + 1
            flip(file)
            with pytest.raises(UserError, match=rf"{inside} was .*; make it again: `jaxtrain \w+ CONFIG`"):
                stage(reader, "--out", "runs/reader")
            file.write_bytes(whole)
    assert compared > 30 and not Path("runs/reader").exists() and not Path("runs/reader.partial").exists()


def test_records_and_weights_are_compared_when_they_are_first_read(copied: Path) -> None:
    def read(kind: str, source: str) -> object:
        return getattr(TokenData.open(copied / "3_tokenize"), kind)(source)[0]

    for kind, source in (("documents", "web"), ("heldout", "code"), ("conversations", "alpaca")):
        flip(copied / "3_tokenize" / kind / source / "00000.arrayrecord")
        with pytest.raises(UserError, match=rf"{kind}/{source}/00000.arrayrecord .*; make it again: `"):
            read(kind, source)
    checkpoint = copied / "5_finetune" / "checkpoint"
    newest = max((path for path in checkpoint.iterdir() if path.name.isdigit()), key=lambda p: int(p.name))
    flip(max((newest / "model").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()))
    with pytest.raises(UserError, match=rf"checkpoint of step {newest.name} .* is corrupt .*; make it again"):
        weights.load(copied / "5_finetune")
    # not its middle, which may be the key of the hash (see above)
    flip(copied / "9_evaluate" / "cost.json", at=12)
    with pytest.raises(UserError, match=r"cost.json was .*; make it again"):
        artifact.read_cost(copied / "9_evaluate")


def test_a_corrupt_newest_checkpoint_is_trained_again_from_the_one_before(copied: Path, tiny: Path) -> None:
    checkpoint = copied / "4_pretrain" / "checkpoint"
    assert {path.name for path in checkpoint.iterdir() if path.name.isdigit()} >= {"40", "30"}
    flip(max((checkpoint / "40" / "model").rglob("*"), key=lambda path: path.stat().st_size * path.is_file()))
    flip(copied / "4_pretrain" / "model.json")
    with pytest.raises(UserError):
        stage("5_finetune", "--out", "runs/reader")
    stage("4_pretrain")
    for name in ("model.json", "samples.jsonl"):
        assert (copied / "4_pretrain" / name).read_bytes() == (runs(tiny) / "4_pretrain" / name).read_bytes()
    log = (copied / "4_pretrain" / "metrics.jsonl").read_text()
    steps = map(json.loads, log.splitlines())
    assert [line["step"] for line in steps if "loss" in line] == list(range(1, 41))
    with jax.set_mesh(meshes.make(MeshConfig())):
        found, wanted = (jax.device_get(weights.load(at / "4_pretrain")) for at in (copied, runs(tiny)))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
    prints = [artifact.input_fingerprint(at / "4_pretrain") for at in (copied, runs(tiny))]
    assert prints[0] == prints[1], "what was made of it stands"


def test_a_changed_file_of_data_is_made_again_to_the_same_bytes(copied: Path) -> None:
    file = copied / "2_clean" / "documents" / "web.parquet"
    whole = file.read_bytes()
    flip(file)
    stage("2_clean")
    assert file.read_bytes() == whole and not Path(f"{copied}/2_clean.old").exists()
