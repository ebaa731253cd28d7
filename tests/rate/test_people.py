"""`jaxtrain rate sample`, `serve`, `export`, `import`: from the shell to what a reward model learns from."""

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stage_run import finish, share

from jaxtrain import artifact, cli
from jaxtrain.rate import people
from jaxtrain.rate.people import ExportConfig, SampleConfig
from jaxtrain.rate.store import Store
from jaxtrain.runtime.errors import UserError

MODELS = ("runs/tiny/4_pretrain", "runs/tiny/5_finetune")


@pytest.fixture
def sampled(tiny, tmp_path, monkeypatch) -> Iterator[Path]:
    """A database with the answers of two models to four questions."""
    monkeypatch.chdir(tiny)
    database = tmp_path / "ratings.sqlite"
    people.sample(sample_config(database))
    yield database


def sample_config(database: Path, **changed) -> SampleConfig:
    settings = {"models": MODELS, "conversations": "runs/tiny/2_clean"}
    settings |= {"prompts": 4, "answers": 2, "longest_prompt": 32, "max_new": 8}
    return SampleConfig(database=str(database), **settings | changed)


def judge_all(database: Path) -> None:
    with Store(str(database)) as store:
        rater = store.add_rater("ann", simulated=False)
        while (task := store.next_task(rater, now=0)) is not None:
            store.judge(task.task, rater, [1, 2, 2, 3], now=0)


def test_samples_are_blind_tasks_and_a_second_run_adds_nothing(sampled):
    with Store(str(sampled)) as store:
        assert store.counts()["tasks"] == 4 and store.counts()["completions"] == 16
    people.sample(sample_config(sampled, prompts=5))
    judge_all(sampled)
    with Store(str(sampled)) as store:
        assert store.counts()["tasks"] == 5, "only the fifth question is new"
        for comparison in store.comparisons():
            assert sorted(comparison.checkpoints) == sorted(MODELS * 2)
            assert all(comparison.completion_ids) and max(map(len, comparison.completion_ids)) <= 8


@pytest.mark.slow
def test_two_processes_ask_as_one_does(sampled, tiny, tmp_path):
    there = [str(tiny / folder) for folder in (*MODELS, "runs/tiny/2_clean")]
    together = sample_config(tmp_path / "together.sqlite", models=tuple(there[:2]), conversations=there[2])
    finish(*share(people.sample, together))
    assert answers(Path(together.database)) == answers(sampled)


def answers(database: Path) -> list[tuple]:
    with contextlib.closing(sqlite3.connect(database)) as connection:
        return connection.execute("select text, token_ids from completion order by id").fetchall()


def test_export_is_a_rate_artifact_and_follows_the_database(sampled, tmp_path):
    config = ExportConfig(database=str(sampled), out=str(tmp_path / "rated"), heldout_share=0.0)
    with pytest.raises(UserError, match="holds no judgements; have people rate"):
        people.export(config)
    judge_all(sampled)
    folder = people.export(config)
    manifest = artifact.require(folder, "rate")
    assert manifest["counts"]["simulated"] is False and manifest["counts"]["train"] == 4
    written = (folder / "manifest.json").stat().st_mtime_ns
    assert people.export(config) == folder
    assert (folder / "manifest.json").stat().st_mtime_ns == written, "nothing new: reused"
    with Store(str(sampled)) as store:
        store.judge(1, store.add_rater("bob", False), [1, 1, 1, 1], now=0)
    people.export(config)
    assert pq.read_table(folder / "train.parquet").num_rows == 5
    pairs = (folder / "preferences.jsonl").read_text().splitlines()
    assert len(pairs) == 4 * 5, "five of six pairs are untied; bob's ties are none"


def test_a_file_of_comparisons_is_exported_as_it_is(tmp_path, capsys):
    asked = [f"\n\nHuman: question {n}\n\nAssistant:" for n in range(40)]
    rows = [{"chosen": f"{text} No.", "rejected": f"{text} Yes."} for text in asked]
    rows.append({"chosen": f"{asked[0]} No.", "rejected": f"{asked[1]} Yes."})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ExportConfig(
        database=str(tmp_path / "pairs.jsonl"), out=str(tmp_path / "rated"), heldout_share=0.5
    )
    folder = people.export(config)
    train, heldout = (pq.read_table(folder / f"{part}.parquet").to_pylist() for part in ("train", "heldout"))
    questions = [{row["prompt"][0]["content"] for row in part} for part in (train, heldout)]
    assert (
        len(train) + len(heldout) == 40 and min(map(len, questions)) > 5 and not set.intersection(*questions)
    )
    assert all((row["completions"], row["ranks"]) == (["No.", "Yes."], [1, 2]) for row in train + heldout)
    counts = artifact.require(folder, "rate")["counts"]
    assert (counts["simulated"], counts["prompts"], counts["completions"]) == (False, 40, 80)
    assert "1 records of" in capsys.readouterr().err
    people.export(config)
    assert "rate: reused" in capsys.readouterr().err


def test_the_shell_imports_and_refuses(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    cli.main(["rate", "import", "--file", "pairs.jsonl"])
    assert "1 comparisons added to ratings.sqlite" in capsys.readouterr().err
    for arguments, words in (
        (["import", "--file", "none.jsonl"], "no comparisons at none.jsonl"),
        (["serve", "--prot", "1"], "ServeConfig has no field --prot; did you mean --port?"),
        (["export", "--database", "ratings.sqlite"], "--out"),
    ):
        with pytest.raises(SystemExit) as stop:
            cli.main(["rate", *arguments])
        assert stop.value.code == 2 and words in capsys.readouterr().err
    cli.main(["rate", "serve", "--help"])
    assert "--overlap int" in capsys.readouterr().out
    with pytest.raises(UserError, match="show 2 to 9"):
        people.sample(sample_config(tmp_path / "r.sqlite", answers=5))


def test_serve_prints_links_that_work_and_ends_on_a_signal(sampled, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jaxtrain", "rate", "serve", "--database", str(sampled)]
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command += ["--port", str(port), "--invite", "ann", "--secret_file", str(tmp_path / "key")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        links = {}
        for line in process.stderr:
            if found := re.match(r"\s+(\w+)\s+(http://127\.0\.0\.1:\d+/\S+)", line):
                links[found[1]] = found[2]
            if "ann" in links:
                break
        page = None
        while page is None and process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError, urllib.error.URLError):
                browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
                page = browser.open(links["ann"]).read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) in (0, 130)
    assert page is not None and "0 rated, 4 left for you" in page and set(links) == {"administrator", "ann"}
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
