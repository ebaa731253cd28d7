"""A recipe in sizes: `--scale` is handed to all configs of a folder, and is part of what they make."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jaxtrain import artifact, cli, pipeline
from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError

ROOT = Path(__file__).parents[1]
SPEEDRUN = ROOT / "configs" / "speedrun"
HUB = "https://huggingface.co/datasets/"
BOOK = """\
from jaxtrain.collect.books import BookSource
from jaxtrain.collect.run import CollectConfig
from jaxtrain.config import scaled

scale = scaled(__file__)
config = CollectConfig(sources=(BookSource(name="book", paths=(scale.text,)),), out=f"{scale.runs}/1_collect")
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of one stage and two scales, which read the same file."""
    monkeypatch.chdir(tmp_path)
    Path("book.txt").write_text("CHAPTER I\n\n" + "It was a bright cold day in the north. " * 40)
    Path("mine").mkdir()
    Path("mine/1_collect.py").write_text(BOOK)
    Path("mine/scales.toml").write_text('[small]\ntext = "book.txt"\n\n[large]\ntext = "book.txt"\n')
    return Path("mine")


def test_a_scale_is_part_of_the_config_the_artifact_and_its_place(
    mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pipeline.run(mine) == [Path("runs/mine-small/1_collect")]
    cli.main(["run", "mine", "--scale", "large"])
    small, large = (artifact.read_manifest(f"runs/mine-{name}/1_collect") for name in ("small", "large"))
    assert small is not None and large is not None
    assert (small["config"]["scale"], large["config"]["scale"]) == ("small", "large")
    assert small["inputs"] == large["inputs"] and small["fingerprint"] != large["fingerprint"]

    capsys.readouterr()
    cli.main(["collect", "mine/1_collect.py", "--scale=large"])
    printed = capsys.readouterr()
    assert "collect: reused runs/mine-large/1_collect" in printed.err
    assert printed.out == "runs/mine-large/1_collect\n"
    cli.main(["collect", "mine/1_collect.py", "--scale", "large", "--out", "runs/mine-small/1_collect"])
    assert "scale small → large" in capsys.readouterr().err
    cli.main(["collect", "mine/1_collect.py", "--scale", "large", "--help"])
    assert "[large]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "mine", "--scale", "huge"], "mine declares no scale 'huge'; choose one of small, large"),
        (
            ["collect", "mine/1_collect.py", "--scale", "huge"],
            "mine declares no scale 'huge'; choose one of small, large",
        ),
        (
            ["plan", str(ROOT / "configs/gpt_1b/1_pretrain.py"), "--topology", "h100:8", "--scale", "d20"],
            f"{ROOT}/configs/gpt_1b declares no scale 'd20'; it has no scales.toml: leave --scale out",
        ),
    ],
)
def test_a_scale_that_is_not_declared_is_one_line(
    mine: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str
) -> None:
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert capsys.readouterr().err.splitlines()[-1] == f"jaxtrain: {line}"


def test_a_mistake_in_the_scales_is_one_line(mine: Path) -> None:
    (mine / "scales.toml").write_text("[small\n")
    with pytest.raises(
        UserError, match=r"mine/scales.toml: .* \(at line 1, column 7\); it holds a table a sc"
    ):
        configs.load(mine / "1_collect.py")
    (mine / "scales.toml").unlink()
    with pytest.raises(UserError, match="mine declares no scale; write its scales.toml"):
        configs.load(mine / "1_collect.py")


def test_the_speedrun_reads_the_hub_and_each_stage_what_those_before_it_wrote() -> None:
    for scale in configs.scales(SPEEDRUN):
        loaded = [configs.load(path, scale) for path in pipeline.config_files(SPEEDRUN)]
        assert [Path(config.out) for config in loaded] == [
            Path(f"runs/speedrun-{scale}") / path.stem for path in pipeline.config_files(SPEEDRUN)
        ]
        made = {config.out for config in loaded}
        for config in loaded[1:-1]:
            named = [getattr(config, name, "") for name in ("documents", "data", "model", "clean")]
            named += getattr(config, "models", {}).values()
            read = [path for path in named if str(path).startswith("runs")]
            assert read and set(read) <= made
        paths = [path for source in loaded[0].sources for path in source.paths]
        assert len(set(paths)) == len(paths)
        assert all((ROOT / path).is_file() if scale == "tiny" else path.startswith(HUB) for path in paths)
        tokenize, pretrain = loaded[2:4]
        assert pretrain.model.vocab_size == tokenize.vocab_size


def test_the_data_of_the_speedrun_in_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins in the hub's columns: all rows are read, and hardly any is lost on the way to tokens."""
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(ROOT / "data")
    counts = []
    for path in pipeline.config_files(SPEEDRUN)[:3]:
        cli.main([path.stem[2:], str(path), "--scale", "tiny"])
        made = Path("runs/speedrun-tiny") / path.stem
        counts.append(json.loads((made / "manifest.json").read_text())["counts"])
    collected, cleaned, tokenized = counts
    rows = {name: of.get("documents", of.get("conversations")) for name, of in collected.items()}
    assert rows == {"fineweb_edu": 60, "smoltalk": 100, "everyday": 40, "mmlu": 60, "gsm8k": 60}
    kept = {name: of["kept"] for name, of in cleaned["funnel"].items()}
    assert all(kept[name] > 0.8 * count for name, count in rows.items())
    encoded = {name: of["records"] for name, of in tokenized["conversations"].items()}
    assert encoded == {name: kept[name] for name in encoded} and len(encoded) == 4
    table = pq.read_table("runs/speedrun-tiny/2_clean/conversations/gsm8k.parquet").to_pylist()
    asked, answer = table[0]["messages"]
    assert asked["content"].endswith("on the last line, after ####.")
    assert answer["content"].splitlines()[-1].startswith("#### ") and "<<" not in answer["content"]


@pytest.mark.slow
def test_all_of_the_speedrun_in_little(tmp_path: Path) -> None:
    """`jaxtrain run configs/speedrun --scale tiny`, as a recipe of one's own."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    for arguments in (("init", "mine", "--from", "speedrun"), ("run", "mine", "--scale", "tiny")):
        command = [sys.executable, "-m", "jaxtrain", *arguments]
        alone = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=alone, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs" / "mine-tiny"
    assert {path.name for path in runs.iterdir()} == {path.stem for path in pipeline.config_files(SPEEDRUN)}
    counts = {
        path.name: json.loads((path / "manifest.json").read_text())["counts"] for path in runs.iterdir()
    }
    kept = {name: of["kept"] for name, of in counts["2_clean"]["funnel"].items()}
    assert counts["5_midtrain"]["conversations"] == sum(kept.values()) - kept["fineweb_edu"]
    assert counts["6_finetune"]["conversations"] == kept["everyday"] + kept["gsm8k"]
    results = json.loads((runs / "8_evaluate" / "results.json").read_text())
    assert {row["model"] for row in results["tasks"]} == {"pretrained", "midtrained", "finetuned", "grpo"}
    page = (runs / "9_report" / "report.html").read_text()
    assert "Mid-training" in page and "GRPO" in page
