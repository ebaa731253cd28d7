"""`jaxtrain report RUN [RUN2 …]`: whatever stands in a folder, at work or finished, and runs side by side."""

import json
import shutil
from pathlib import Path

import pytest

from jaxtrain import cli
from jaxtrain.report import gather, runs
from jaxtrain.report.costs import Prices
from jaxtrain.runtime.errors import UserError


def copied(artifacts: dict[str, Path], to: Path, *names: str) -> Path:
    for name in names or artifacts:
        shutil.copytree(artifacts[name], to / artifacts[name].name)
    return to


def at_work(run: Path, name: str, steps: int) -> None:
    """As a stage leaves it in the middle: no manifest, no cost of the end, a last line half written."""
    folder = (run / name).rename(run / f"{name}.partial")
    began = json.loads((folder / "manifest.json").read_text())
    del began["counts"], began["files"]
    (folder / "manifest.json").unlink()
    (folder / "started.json").write_text(json.dumps(began))
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:steps]) + '{"step": 99, "lo')


def numbers(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


def test_a_folder_of_artifacts_is_a_report(artifacts, report, tmp_path, capsys):
    run = copied(artifacts, tmp_path / "run")
    cli.main(["report", str(run), "--price", "2.5", "--pue", "1.1", "--grid", "0.2"])
    assert capsys.readouterr().out.strip() == str(run / "report" / "report.html")
    found, stage = numbers(run / "report"), numbers(report)
    assert found["headline"] == stage["headline"]
    cost = found["cost"]
    assert cost["money"] == pytest.approx(cost["device_hours"] * 2.5)
    assert cost["kilograms"]["value"] == pytest.approx(cost["kilowatt_hours"]["value"] * 0.2)
    low, high = (
        cost["kilowatt_hours"][bound] / stage["cost"]["kilowatt_hours"][bound] for bound in ("low", "high")
    )
    assert (low, high) == (pytest.approx(1.1 / 1.0), pytest.approx(1.1 / 1.6))
    page = (run / "report" / "report.html").read_text()
    assert "no price stated" not in page and "2.5 USD for a device and hour" in page
    assert (
        "| Held-out text, bits per byte of the pretrained model" in (run / "report" / "report.md").read_text()
    )


def test_any_artifact_alone_is_a_page(artifacts, tmp_path):
    for name, folder in artifacts.items():
        runs.report(runs.PagesConfig(runs=(str(folder),), out=str(tmp_path / name)))
        found, page = numbers(tmp_path / name), (tmp_path / name / "report.html").read_text()
        assert list(found["run"]["fingerprints"]) == [name]
        assert "jaxtrain run small" in page and "None" not in page


@pytest.mark.parametrize(
    ("name", "kind"),
    [("grpo", "GRPOConfig"), ("preference", "PreferenceConfig"), ("distill", "DistillConfig")],
)
def test_every_training_is_on_the_page(artifacts, tmp_path, name: str, kind: str):
    """With its counts, its curves by round or by step, and what it wrote first and last."""
    run = copied(artifacts, tmp_path / "run", "finetune", "ppo")
    folder = (run / artifacts["ppo"].name).rename(run / f"6_{name}")
    manifest = json.loads((folder / "manifest.json").read_text())
    counts = {"steps": 40, "accuracy_after": 0.625, "problems": {"read": 3}}
    manifest |= {"stage": "align", "config": {"class": kind}, "counts": counts}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    page = (run / "report" / "report.html").read_text()
    assert numbers(run / "report")["trained"] == {name: {"steps": 40, "accuracy_after": 0.625}}
    assert "<dt>accuracy after</dt><dd>0.625</dd>" in page
    assert "reward, entropy, length by round" in page
    assert "round 30: answers are 0.49" in page, "what was flagged"
    assert page.count("at the end, step 40") == 3


def test_measured_energy_stands_beside_the_estimate_and_is_not_added(artifacts, tmp_path):
    run = copied(artifacts, tmp_path / "run")
    before = gather.gather(gather.find(run), Prices())["cost"]
    measured = {"seconds": 500.0, "kilowatt_hours": {"nvml": 0.07, "rapl": 0.01}}
    (run / "4_pretrain" / "cost.json").write_text(json.dumps({"seconds": 512.0, "measured": measured}))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    cost = numbers(run / "report")["cost"]
    assert cost["measured"] == {"nvml": 0.07, "rapl": 0.01} and cost["measured_seconds"] == 500
    assert cost["kilowatt_hours"] == before["kilowatt_hours"]
    page = (run / "report" / "report.html").read_text()
    assert "70 Wh (NVML), 10 Wh (RAPL)" in page and "Counters were read for 8 min 20 s" in page


def test_a_run_at_work_shows_what_is_there(artifacts, tmp_path):
    run = copied(artifacts, tmp_path / "run", "collect", "clean", "tokenize", "pretrain")
    at_work(run, "4_pretrain", 150)
    out = tmp_path / "live"
    out.mkdir()
    runs._write([run], out, Prices(), refresh=30)
    found, page = numbers(out), (out / "report.html").read_text()
    assert found["live"] == ["pretrain"] and found["cost"] is None
    assert found["pretrain"]["steps"] == 149 and found["pretrain"]["matmul_parameters"] > 1e6
    assert '<meta http-equiv="refresh" content="30">' in page and "At work:" in page
    assert "Benchmarks" not in page and "Pretraining" in page


def test_refused_steps_rollbacks_and_goodput_are_told(artifacts, tmp_path):
    run = copied(artifacts, tmp_path / "run")
    path = run / "4_pretrain" / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[9] |= {"accepted": 0.0, "loss": None}
    lines.insert(12, {"step": 12, "kind": "rollback", "reason": "3 steps refused in a row", "passed": 3})
    parts = {f"seconds/{part}": 10.0 for part in ("start", "data", "steps", "evaluate", "save", "lost")}
    speed = {"kind": "speed", "goodput": 0.83, "mfu": None, "data_wait": 0.01, "peak_memory_bytes": None}
    lines.append({"step": 400, **speed, **parts})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = run / "4_pretrain" / "incidents" / "batch-00000009"
    kept.mkdir(parents=True)
    told = {"loss": {"value": "nan", "limit": 7.2}, "grad_norm": {"value": 0.5, "limit": 0.749}}
    (kept / "incident.json").write_text(json.dumps({"step": 10, **told}))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    page = (run / "report" / "report.html").read_text()
    assert "The guard refused step 10 (loss nan, limit 7.2): the weights stayed as they were." in page
    assert "the guard refused 1, with 1 rollbacks" in page and "3 steps refused in a row" in page
    assert "83.0 %" in page and "peak not known" in page
    svg = page[page.index("Pretraining loss by step") :]
    assert ">refused step<" in svg and ">rollback<" in svg


def test_runs_stand_side_by_side(artifacts, tmp_path):
    one = copied(artifacts, tmp_path / "one")
    two = copied(artifacts, tmp_path / "two", "collect", "clean", "tokenize", "pretrain", "evaluate")
    path = two / "9_evaluate" / "results.json"
    results = json.loads(path.read_text())
    results["heldout"][4]["bits_per_byte"] = 1.5
    path.write_text(json.dumps(results))
    path = two / "4_pretrain" / "manifest.json"
    manifest = json.loads(path.read_text())
    sources = [{"class": "CodeSource", "name": "code"}]
    manifest["config"] |= {"data": "<input data>", "window": 64, "sources": sources}
    manifest["config"]["model"] |= {"layers": 2}
    path.write_text(json.dumps(manifest))
    runs.report(runs.PagesConfig(runs=(str(one), str(two)), out=str(tmp_path / "both")))
    found = numbers(tmp_path / "both")
    assert list(found) == ["one", "two"]
    page = (tmp_path / "both" / "report.html").read_text()
    row = page[page.index("Held-out text, bits per byte of the pretrained") :]
    assert "<td>1.920</td><td>1.500</td>" in row[:200]
    assert "Training loss and held-out bits per byte of each run" in page
    apart = page[page.index("What was set differently") : page.index("<h2>Pretraining")]
    rows = [row.split("</tr>")[0] for row in apart.split("<tr><th scope")[1:]]
    assert len(rows) == 3, "only fields that differ, and nothing within the list"
    assert "model.layers" in rows[0] and "<td>4</td><td>2</td>" in rows[0]
    assert "window" in rows[1] and "<td>–</td><td>64</td>" in rows[1]
    assert "sources" in rows[2] and "<td>–</td><td>1</td>" in rows[2]
    assert page.count("<svg") == 2  # curves and memorisation


def test_memorisation_and_bias_are_shown_where_they_were_measured(artifacts, report, tmp_path):
    page = (report / "report.html").read_text()
    for words in (
        "exposure of canaries",
        "stereotype preferred",
        "does not measure: What &lt;script&gt;",
        "240.5",
    ):
        assert words in page
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') == 12
    run = copied(artifacts, tmp_path / "run")
    path = run / "9_evaluate" / "results.json"
    results = json.loads(path.read_text())
    path.write_text(json.dumps({part: results[part] for part in ("tasks", "heldout")}))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    page = (run / "report" / "report.html").read_text()
    assert "Memorisation" not in page and "Bias" not in page and page.count("<svg") == 9
    refusals = [row | {"fair": 0.0} for row in results["bias"]]  # no pairs, so no picture of pairs
    path.write_text(json.dumps({**results, "bias": refusals}))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    page = (run / "report" / "report.html").read_text()
    assert "Bias and safety" in page and "finds the stereotype" not in page


def test_an_evaluation_of_benchmarks_alone_is_a_page(artifacts, tmp_path):
    run = copied(artifacts, tmp_path / "run", "evaluate")
    path = run / artifacts["evaluate"].name / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"heldout": []}))
    runs.report(runs.PagesConfig(runs=(str(run),)))
    assert "Benchmarks" in (run / "report" / "report.html").read_text()


def test_a_folder_without_artifacts_is_named(tmp_path, capsys):
    with pytest.raises(UserError, match="holds no artifact"):
        gather.find(tmp_path)
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path), "--wtach", "3"])
    assert "no field --wtach; did you mean --watch" in capsys.readouterr().err
