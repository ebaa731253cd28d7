"""The rate stage on a trained model: what is asked, stored, exported and stated."""

import contextlib
import dataclasses
import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from tiny_run import CONFIGS

from jaxtrain import config as configs
from jaxtrain.rate.run import run
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.utility import utility
from jaxtrain.tokenize.tokenizer import Tokenizer


@pytest.fixture
def folder(in_tiny) -> Path:
    return Path(in_tiny("6_rate"))


@pytest.fixture
def exported(folder) -> dict[str, list[dict[str, Any]]]:
    return {name: pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("train", "heldout")}


def counts_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())["counts"]


def query(folder: Path, statement: str) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(folder / "ratings.sqlite")) as database:
        return database.execute(statement).fetchall()


def test_the_store_holds_what_the_config_asks_for(folder):
    assert query(folder, "select count(*) from prompt") == [(64,)]
    assert query(folder, "select count(*) from completion") == [(64 * 4,)]
    assert query(folder, "select count(*) from task") == [(64,)]
    judged = Counter(number for (number,) in query(folder, "select judged from task"))
    assert judged == {1: 48, 2: 16}, "rated_twice"
    raters = query(folder, "select name, simulated from rater order by name")
    assert raters == [(f"simulated rater {n}", 1) for n in (1, 2, 3)]
    per_rater = query(folder, "select count(*) from judgement group by rater_id")
    assert sorted(n for (n,) in per_rater) == [26, 27, 27]
    twice = query(folder, "select count(*) from judgement group by task_id, rater_id having count(*) > 1")
    assert twice == [], "a rater judges a task once"
    counts = counts_of(folder)
    stated = {name: counts[name] for name in ("prompts", "completions", "tasks", "raters", "judgements")}
    assert stated == {"prompts": 64, "completions": 256, "tasks": 64, "raters": 3, "judgements": 80}


def test_every_judgement_is_exported_and_marked_simulated(folder, exported):
    rows = exported["train"] + exported["heldout"]
    assert len(rows) == 80
    assert all(row["simulated"] is True for row in rows)
    assert counts_of(folder)["simulated"] is True
    assert all(sorted(row["ranks"]) == [1, 2, 3, 4] for row in rows)
    asked = [{row["prompt"][0]["content"] for row in exported[name]} for name in exported]
    assert not asked[0] & asked[1], "no prompt is in both"
    assert len(asked[0] | asked[1]) == 64
    assert 4 <= len(asked[1]) <= 25, "about a fifth"


def test_texts_are_their_tokens_without_the_stop_token(in_tiny, exported):
    tokenizer = Tokenizer.load(Path(in_tiny("5_finetune")) / "tokenizer")
    stop, stopped = tokenizer.special["<|end|>"], 0
    for row in exported["train"]:
        for text, ids in zip(row["completions"], row["completion_ids"], strict=True):
            assert 1 <= len(ids) <= 12, "max_new"
            assert tokenizer.decode([i for i in ids if i != stop]) == text
            assert stop not in ids[:-1]
            stopped += ids[-1] == stop
    assert stopped > 0


def test_raters_like_what_the_utility_likes_whatever_the_order_on_the_screen(folder, exported):
    rows = exported["train"] + exported["heldout"]
    better = [utility(row["completions"][row["ranks"].index(1)]) for row in rows]
    worst = [utility(row["completions"][row["ranks"].index(4)]) for row in rows]
    assert np.mean(better) > np.mean(worst) + 0.05
    best_at = Counter(row["ranks"].index(1) for row in rows)
    assert max(best_at.values()) < 40, "the order is shuffled"
    counts = counts_of(folder)
    assert counts["agreement"]["pairs"] == 16 * 6
    assert counts["left_bias"]["low"] < 0.5 < counts["left_bias"]["high"]
    answers = {(row["prompt"][0]["content"], text) for row in rows for text in row["completions"]}
    means = np.mean([utility(text) for _, text in sorted(answers)])
    assert counts["utility"]["mean"] == pytest.approx(means, abs=0.05)


def test_made_again_it_is_the_same_bytes(tiny, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny)
    again = run(dataclasses.replace(configs.load(CONFIGS / "6_rate.py"), out=str(tmp_path / "again")))
    for name in ("train.parquet", "heldout.parquet", "ratings.sqlite"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    assert counts_of(again) == counts_of(folder)


def test_what_cannot_be_rated_is_said_before_anything_is_sampled(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny)
    config = configs.load(CONFIGS / "6_rate.py")
    with pytest.raises(
        UserError, match=r"prompts is 5000, but runs/tiny/2_clean has \d+ questions of at most 48"
    ):
        run(dataclasses.replace(config, prompts=5000, out=str(tmp_path / "out")))
    with pytest.raises(UserError, match="no question of at most 3 tokens"):
        run(dataclasses.replace(config, longest_prompt=3, out=str(tmp_path / "out")))
    with pytest.raises(UserError, match="agreement needs raters .* rated_twice"):
        run(dataclasses.replace(config, rated_twice=0, out=str(tmp_path / "out")))
