"""The evaluate stage: every field of results.json, from the models and the text that it names."""

import dataclasses
import json
import lzma
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CONFIGS

from jaxtrain import config as configs
from jaxtrain.evaluate.memorization import MemorizationConfig
from jaxtrain.evaluate.run import run
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.catalog import TASKS

MODELS = ["pretrained", "finetuned", "ppo"]
DATA = Path(__file__).parents[2] / "data" / "quickstart"
NAMES = ["arc_easy", "piqa", "winogrande"]


@pytest.fixture
def results(in_tiny) -> dict:
    return json.loads((Path(in_tiny("9_evaluate")) / "results.json").read_text())


def test_every_model_has_a_row_of_every_task_with_all_its_fields(results):
    rows = results["tasks"]
    assert [(row["model"], row["task"]) for row in rows] == [
        (model, task) for model in MODELS for task in NAMES
    ]
    for row in rows:
        fields = "model task metric value standard_error chance items shots version scores"
        assert set(row) == set(fields.split())
        assert row["items"] == 16
        assert set(row["scores"]) == {"accuracy", "accuracy_per_byte"}
        assert row["scores"][row["metric"]] == {
            name: row[name] for name in ("value", "standard_error", "items")
        }
        assert row["shots"] == 0
        assert row["version"] == TASKS[row["task"]].version
        assert row["metric"] == TASKS[row["task"]].metric
        assert 0 <= row["value"] <= 1
        # the spread of 16 grades of 0 and 1 with that mean
        wanted = np.sqrt(row["value"] * (1 - row["value"]) / 15)
        assert row["standard_error"] == pytest.approx(wanted, abs=0.02)
    assert {row["task"]: round(row["chance"], 3) for row in rows} == {
        "arc_easy": 0.25,
        "piqa": 0.5,
        "winogrande": 0.5,
    }


def test_held_out_text_stands_beside_what_xz_makes_of_the_same_bytes(results, in_tiny):
    texts = {
        path.stem: "".join(pq.read_table(path, columns=["text"]).column("text").to_pylist()).encode()
        for path in sorted((Path(in_tiny("2_clean")) / "heldout").glob("*.parquet"))
    }
    assert set(texts) == {"web", "code"}
    texts["all"] = b"".join(texts[source] for source in sorted(texts))
    rows = {(row["model"], row["source"]): row for row in results["heldout"]}
    assert set(rows) == {(model, source) for model in MODELS for source in texts}
    for (_, source), row in rows.items():
        assert row["bytes"] == len(texts[source])
        packed = len(lzma.compress(texts[source], preset=9 | lzma.PRESET_EXTREME))
        assert row["xz_bits_per_byte"] == pytest.approx(8 * packed / len(texts[source]))
    for model in MODELS:
        parts = [rows[model, source] for source in ("code", "web")]
        whole = sum(part["bits_per_byte"] * part["bytes"] for part in parts) / len(texts["all"])
        assert rows[model, "all"]["bits_per_byte"] == pytest.approx(whole)


def test_the_aggregate_centres_each_task_on_chance(results):
    for model in MODELS:
        rows = [row for row in results["tasks"] if row["model"] == model]
        (found,) = [row for row in results["aggregate"] if row["model"] == model]
        by_hand = np.mean([(row["value"] - row["chance"]) / (1 - row["chance"]) for row in rows])
        assert found["value"] == pytest.approx(by_hand)
        assert found["tasks"] == NAMES
        assert 0.05 < found["standard_error"] < 0.2  # three tasks of sixteen items


def test_languages_and_positions_share_out_the_same_nats(results):
    for model in MODELS:
        languages = [row for row in results["languages"] if row["model"] == model]
        total = next(row for row in results["heldout"] if (row["model"], row["source"]) == (model, "all"))
        nats = sum(row["bits_per_byte"] * row["bytes"] for row in languages)
        assert nats == pytest.approx(total["bits_per_byte"] * total["bytes"], rel=1e-6)
        assert sum(row["bytes"] for row in languages) == total["bytes"]
        positions = [row for row in results["positions"] if row["model"] == model]
        assert [(row["from"], row["to"]) for row in positions[:4]] == [(0, 0), (1, 1), (2, 3), (4, 7)]
        by_position = sum(row["tokens"] * np.log2(row["perplexity"]) for row in positions)
        assert by_position == pytest.approx(nats, rel=1e-3)


def test_it_measures_what_training_measured(results, in_tiny):
    """The last evaluation in pretraining read a part of the same text with the same model."""
    lines = (Path(in_tiny("4_pretrain")) / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line.get("kind") == "heldout"][-1]
    rows = {row["source"]: row["bits_per_byte"] for row in results["heldout"] if row["model"] == "pretrained"}
    assert rows["code"] == pytest.approx(last["bits_per_byte/code"], rel=0.05)
    assert rows["web"] == pytest.approx(last["bits_per_byte/web"], rel=0.05)


def test_quoted_items_stand_apart_and_training_text_beside_held_out(tiny, tmp_path, monkeypatch):
    """Clean took out what quotes ARC, and nothing of PIQA was looked for."""
    monkeypatch.chdir(tiny)
    config = dataclasses.replace(
        configs.load(CONFIGS / "9_evaluate.py"),
        models={"pretrained": "runs/tiny/4_pretrain"},
        tasks=("arc_easy", "piqa"),
        questions=("How can I make a friend happy?", "Who wrote Emma?"),
        contamination=True,
        unconditional=True,
        memorization=MemorizationConfig(sequences=3, prefixes=(32,)),
        out=str(tmp_path / "out"),
    )
    found = json.loads((run(config) / "results.json").read_text())
    for row in found["tasks"]:
        assert row["clean"]["items"] + row["overlapping"]["items"] == row["items"] == 16
        assert set(row["scores"]) == {"accuracy", "accuracy_per_byte", "accuracy_unconditional"}
    assert [(row["model"], row["question"]) for row in found["answers"]] == [
        ("pretrained", "How can I make a friend happy?"),
        ("pretrained", "Who wrote Emma?"),
    ]
    assert all(row["answer"] for row in found["answers"])
    arc = found["tasks"][0]
    assert (arc["overlapping"]["items"], arc["clean"]["value"]) == (0, arc["value"])
    assert [(row["text"], row["sequences"], row["count"]) for row in found["extraction"]] == [
        ("training", 3, None),
        ("held-out", 3, None),
    ]
    with pytest.raises(UserError, match="need training text: `clean`, `data`"):
        run(dataclasses.replace(config, clean="", data=""))
    with pytest.raises(UserError, match="give both, or neither"):
        run(dataclasses.replace(config, data=""))


def test_a_wrong_task_or_folder_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny)
    config = dataclasses.replace(configs.load(CONFIGS / "9_evaluate.py"), out=str(tmp_path / "out"))
    with pytest.raises(UserError, match="no task 'arc_hard'; tasks are arc_easy, arc_challenge, boolq"):
        run(dataclasses.replace(config, tasks=("arc_hard",)))
    with pytest.raises(UserError, match="task arc_easy has no data at"):
        run(dataclasses.replace(config, benchmarks=str(tmp_path)))
    with pytest.raises(UserError, match="runs/tiny/4_nothing"):
        run(dataclasses.replace(config, models={"pretrained": "runs/tiny/4_nothing"}))
    with pytest.raises(UserError, match="holds no model"):
        run(dataclasses.replace(config, models={"clean": "runs/tiny/2_clean"}))
