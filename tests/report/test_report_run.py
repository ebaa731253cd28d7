"""The page opens offline, says what the artifacts say, and never lends a number from elsewhere."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from jaxtrain.report import census
from jaxtrain.report.gather import duration
from jaxtrain.report.run import ReportConfig, energy, run, show
from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks import utility

FLAGGED = "round 30: answers are 0.49 times as long as at first"
HOSTILE = "<script>alert('x')</script> & \"quoted\""  # stands in a question of the artifacts
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and visible text; every element that opens must close."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "report.html").read_text(encoding="utf-8"))


def config_of(at: dict[str, Path], out: Path) -> ReportConfig:
    return ReportConfig(run=str(at["collect"].parent), out=str(out))


def copied(artifacts: dict[str, Path], to: Path) -> dict[str, Path]:
    shutil.copytree(artifacts["collect"].parent, to, ignore=shutil.ignore_patterns("10_report*"))
    return {name: to / folder.name for name, folder in artifacts.items()}


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_page_is_one_file_that_needs_no_network_and_no_script(page: Page):
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"}.intersection(page.tags)
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert loads and all(value and value.startswith("#") for value in loads)


def test_text_of_users_and_models_is_shown_and_never_becomes_markup(page: Page, report: Path):
    assert HOSTILE in page.text
    assert "<script" not in (report / "report.html").read_text(encoding="utf-8")


def test_ids_are_unique_and_every_reference_has_its_target(page: Page, report: Path):
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:url\(|href=")#([^)"]+)', (report / "report.html").read_text(encoding="utf-8"))
    assert len(used) > 20 and set(used) <= set(ids)


def test_pictures_take_their_colours_from_the_page(report: Path):
    svgs = re.findall(r"<svg.*?</svg>", (report / "report.html").read_text(encoding="utf-8"), re.S)
    assert len(svgs) == 12
    for svg in svgs:
        assert "var(--ink)" in svg and not re.search(r"#[0-9a-f]{6}\b", svg)


def test_headline_numbers_are_those_of_the_artifacts(page: Page, report: Path, artifacts: dict[str, Path]):
    reward = json.loads((artifacts["reward"] / "manifest.json").read_text())["counts"]
    rows = {row["measure"]: row for row in json.loads((report / "results.json").read_text())["headline"]}
    row = rows["Held-out text, bits per byte of the pretrained model (lower is better)"]
    assert row["value"] == "1.920"
    assert "438,734 bytes: 2.430" in row["beside"]
    row = rows["Reward model on held-out comparisons of simulated raters"]
    assert row["value"] == f"{100 * reward['heldout_accuracy']:.1f} ± {100 * reward['standard_error']:.1f} %"
    for baseline in ("untrained_accuracy", "length_accuracy", "ceiling"):
        assert f"{100 * reward[baseline]:.1f} %" in row["beside"]
    ppo = rows["PPO: true utility to simulated raters"]
    assert ppo["value"] == "+1.27 SD" and "KL 8.10 nats a sequence" in ppo["beside"]
    for row in rows.values():
        assert row["measure"] in page.text and row["value"] in page.text and row["beside"] in page.text


def test_a_part_of_core_is_shown_and_called_a_part(page: Page, report: Path):
    part = "CORE of 2 of 22 tasks, at most 100 items a task"
    rows = {row["measure"]: row for row in json.loads((report / "results.json").read_text())["headline"]}
    row = rows[f"{part} (PPO)"]
    assert row["value"] == "0.020 ± 0.040" and "pretrained 0.050 ± 0.040" in row["beside"]
    assert "squad 10.0 ± 4.9 % 10.0 ± 4.9 % 0.0 % 100 0 mean, centred 0.050 ± 0.040 0.020 ±" in page.text
    for text in (page.text, (report / "report.md").read_text(encoding="utf-8")):
        called = re.sub(f"{part}|Tasks of CORE|a part of CORE|no published CORE", "", text)
        assert part in text and "CORE" not in called


def test_the_funnel_adds_up_on_the_page(page: Page, artifacts: dict[str, Path]):
    funnel = json.loads((artifacts["clean"] / "funnel.json").read_text())

    def total(row: str) -> int:
        """The last number of a row: that of all sources."""
        found = re.search(rf" {row}((?: −?[\d,]+)+)", page.text)
        assert found, row
        return int(found[1].split()[-1].replace(",", "").replace("−", "-"))

    reasons = {reason for counts in funnel.values() for reason in counts["dropped"]}
    dropped = {reason: total(f"dropped: {reason}") for reason in reasons}
    assert total("all in") == sum(counts["in"] for counts in funnel.values())
    assert dropped == {r: -sum(counts["dropped"].get(r, 0) for counts in funnel.values()) for r in reasons}
    assert total("all in") + sum(dropped.values()) + total("held out") == total("kept")


def test_the_census_is_on_the_page_and_tokens_before_tokenizing_are_an_estimate(
    page: Page, report: Path, artifacts: dict[str, Path]
):
    funnel = json.loads((artifacts["clean"] / "funnel.json").read_text())
    counts = json.loads((artifacts["tokenize"] / "manifest.json").read_text())["counts"]
    tokens = {
        name: row["tokens"] for kind in ("documents", "conversations") for name, row in counts[kind].items()
    }
    collected = sum(of["bytes_in"] * tokens[source] / of["bytes_kept"] for source, of in funnel.items())
    rows = json.loads((report / "results.json").read_text())["census"]["steps"]
    assert rows[0]["tokens"] == pytest.approx(collected, rel=5e-3) and not rows[0]["exact"]
    assert rows[-1]["tokens"] == sum(tokens.values()) and rows[-1]["exact"]
    for row, sign in zip(rows, ("≈ ", ""), strict=True):
        assert re.search(rf"{row['step']} {row['records']:,} \S+ .B {sign}{row['tokens']:,} ", page.text)
    assert "9 others 9" in page.text and f"{HOSTILE} 0 1 20 bytes 0 0 bytes" in page.text  # languages
    assert "By the records in them, the kept one counted: 1 of 3 to 4." in page.text
    assert f"3 books 2, web 1 {HOSTILE} 00000000000000aa" in page.text
    documents = sum(of["in"] for source, of in funnel.items() if source in counts["documents"])
    assert f"likeliest label collected size kept size share of kept bytes news {documents:,} " in page.text


def test_without_a_tokenizer_no_tokens_are_told(artifacts: dict[str, Path]):
    found = json.loads((artifacts["clean"] / "census.json").read_text())
    assert [row["tokens"] for row in census.gather(found, None)["steps"]] == [None, None]
    nothing_kept = [
        {"step": "all", "left": {"a": [2, 100], "b": [1, 50]}},
        {"step": "kept", "left": {"a": [1, 40], "b": [0, 0]}},
    ]
    assert [row["tokens"] for row in census.steps(nothing_kept, {"a": 10})] == [37, 10]  # b at the rate of a


def test_the_signals_that_cleaning_changed_most_are_shown():
    def of(before: list[int], after: list[int]) -> dict[str, list[int]]:
        return {"before": before, "after": after}

    edges = [0.0, 0.5, 1.0]
    found = {
        "bins": dict.fromkeys(("words", "still", "little", "much"), edges),
        "signals": {
            "web": {
                "words": of([1, 1], [1, 1]),
                "still": of([3, 3], [2, 2]),
                "little": of([2, 4], [2, 3]),
                "much": of([2, 4], [0, 4]),
            }
        },
    }
    assert census.shown(found) == ["words", "much", "little"]
    assert census.by_size({"2": 5, "3": 1, "4": 2, "900": 1}) == [("2", 5), ("3 to 4", 3), ("513 to 1024", 1)]


def test_simulated_raters_are_called_so_and_their_utility_is_stated(page: Page):
    assert utility.DESCRIPTION in page.text
    assert "No person ranked answers" in page.text
    ratings = re.findall(r"(\w+) raters", page.text)
    assert len(ratings) > 10 and set(ratings) <= {"simulated", "Simulated"}


def test_a_run_rated_by_people_has_no_true_utility(artifacts: dict[str, Path], tmp_path: Path):
    """With the counts of `rate export` after an import of pairs, and of the stages that learn from them."""
    at = copied(artifacts, tmp_path / "run")
    judged = {"simulated": False, "agreement": {"pairs": 0}, "prompts": 40, "completions": 80}
    judged |= {"judgements": 40, "raters": 1, "skipped": 0, "train": 32, "heldout": 8}
    manifests = {name: json.loads((at[name] / "manifest.json").read_text()) for name in ("reward", "ppo")}
    edit(at["rate"] / "manifest.json", counts=judged, inputs={"database": "d" * 64})
    unknown = {"simulated": False, "ceiling": None, "ceiling_of": "agreement of two raters"}
    edit(at["reward"] / "manifest.json", counts=manifests["reward"]["counts"] | unknown)
    counts = {k: v for k, v in manifests["ppo"]["counts"].items() if not k.startswith("utility")}
    edit(at["ppo"] / "manifest.json", counts=counts | {"simulated": False})
    lines = [json.loads(line) for line in (at["ppo"] / "metrics.jsonl").read_text().splitlines()]
    kept = ({k: v for k, v in line.items() if k != "utility"} for line in lines)
    (at["ppo"] / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    out = run(config_of(at, tmp_path / "out"))
    page = Page((out / "report.html").read_text(encoding="utf-8"))
    assert "utility" not in page.text.lower() and "simulated" not in page.text.lower()
    assert "how often two raters agree on a pair unknown" in page.text
    rows = {row["measure"]: row for row in json.loads((out / "results.json").read_text())["headline"]}
    row = rows["PPO: score of the reward model that it was trained on"]
    assert row["value"] == "+2.10 SD" and "a proxy" in row["beside"]
    assert rows["Reward model on held-out comparisons of raters"]["value"] == "78.1 ± 1.6 %"


def test_what_the_monitor_flagged_is_on_the_page(page: Page):
    assert FLAGGED in page.text


def test_each_stage_shows_the_same_prompts_before_and_after(page: Page):
    assert page.text.count("How can I make a friend happy?") == 2  # fine-tuning and PPO
    assert "early, step 100" in page.text and "at the end, step 400" in page.text
    assert "fine-tuned, step 0" in page.text and "after PPO, step 40" in page.text


def test_a_stage_that_sampled_once_shows_its_samples_once(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    lines = (at["finetune"] / "samples.jsonl").read_text().splitlines(keepends=True)
    (at["finetune"] / "samples.jsonl").write_text("".join(line for line in lines if '"step": 80' in line))
    text = Page((run(config_of(at, tmp_path / "out")) / "report.html").read_text(encoding="utf-8")).text
    assert text.count("at the end, step 80") == 3 and "early, step 80" not in text


def test_costs_are_called_an_estimate_with_their_range_and_assumptions(page: Page, report: Path):
    cost = json.loads((report / "results.json").read_text())["cost"]
    assert cost["seconds"] == pytest.approx(1032.2)
    energy_of_stages = sum(stage["kilowatt_hours"]["value"] for stage in cost["stages"].values())
    assert cost["kilowatt_hours"]["value"] == pytest.approx(energy_of_stages)
    assert cost["kilowatt_hours"]["value"] == pytest.approx(1032.2 * cost["cores"] * 10 * 1.2 / 3.6e6)
    assert cost["kilograms"]["low"] < cost["kilograms"]["value"] < cost["kilograms"]["high"]
    assert "energy, estimate" in page.text and "No meter was read" in page.text and "0.05 to 0.8" in page.text


def test_pictures_say_with_which_command_they_were_made(page: Page):
    assert "Made by jaxtrain run small." in page.text.replace(" .", ".")


def test_the_same_artifacts_give_the_same_bytes(artifacts: dict[str, Path], report: Path, tmp_path: Path):
    again = run(config_of(copied(artifacts, tmp_path / "runs" / "small"), tmp_path / "out"))
    for name in ("report.html", "results.json"):
        assert (again / name).read_bytes() == (report / name).read_bytes()


def test_show_prints_the_results_and_the_page_to_stdout(report: Path, capsys: pytest.CaptureFixture[str]):
    show(report)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "78.1 ± 1.6 %" in printed.out and "simulated raters" in " ".join(printed.out.split())
    assert printed.out.splitlines()[-1] == str(report / "report.html")


def test_a_run_without_ratings_has_a_page_without_them(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    for name in ("rate", "reward", "ppo", "evaluate"):
        shutil.rmtree(at[name])
    text = Page((run(config_of(at, tmp_path / "out")) / "report.html").read_text(encoding="utf-8")).text
    assert "Fine-tuning" in text and "Ratings" not in text and "simulated" not in text


def test_the_page_says_what_its_numbers_show(page: Page, report: Path):
    verdicts = json.loads((report / "results.json").read_text())["verdicts"]
    assert {part for part, of in verdicts.items() if not of["doubts"]} == {
        *("pretrain", "finetune", "reward", "bias", "cost")
    }
    assert {part for part, of in verdicts.items() if of["doubts"]} == {
        *("rate", "ppo", "benchmarks", "core", "extraction")
    }
    assert "at chance" in verdicts["benchmarks"]["text"] and FLAGGED in verdicts["ppo"]["text"]
    text = (report / "report.md").read_text(encoding="utf-8")
    for verdict in verdicts.values():
        assert verdict["text"] in page.text and verdict["text"] in text
        assert not verdict["doubts"] or verdict["doubts"] in page.text[: page.text.index("what came in")]


def test_the_page_says_when_and_how_it_was_made_and_the_date_is_in_no_fingerprint(
    artifacts: dict[str, Path], tmp_path: Path
):
    at = copied(artifacts, tmp_path / "run")
    before = run(config_of(at, tmp_path / "before"))
    edit(at["rate"] / "cost.json", date="2026-02-03")
    edit(at["ppo"] / "cost.json", date="2026-02-04")
    after = run(config_of(at, tmp_path / "after"))
    assert "finished on" not in (before / "report.html").read_text()
    text = Page((after / "report.html").read_text(encoding="utf-8")).text
    assert "finished on 2026-02-04" in text
    assert "model.layers 4," in text and "model.d_model 256," in text
    made = [json.loads((folder / "manifest.json").read_text())["fingerprint"] for folder in (before, after)]
    assert made[0] == made[1]


def test_a_missing_file_of_an_artifact_is_named(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    (at["clean"] / "funnel.json").unlink()
    with pytest.raises(UserError, match=r"funnel\.json is absent"):
        run(config_of(at, tmp_path / "out"))


def test_artifacts_of_two_runs_are_not_mixed_on_one_page(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    edit(at["tokenize"] / "manifest.json", fingerprint="f" * 64)
    with pytest.raises(UserError, match=r"4_pretrain was not made from .*3_tokenize"):
        run(config_of(at, tmp_path / "out"))


def test_a_fine_tuning_that_another_goes_on_from_is_mid_training(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    for name in ("rate", "reward", "ppo", "evaluate"):
        shutil.rmtree(at[name])
    before = json.loads((at["finetune"] / "manifest.json").read_text())
    second = at["finetune"].with_name("6_finetune")
    shutil.copytree(at["finetune"], second)
    inputs = before["inputs"] | {"model": before["fingerprint"]}
    edit(second / "manifest.json", inputs=inputs, fingerprint="f" * 64)
    made = run(config_of(at, tmp_path / "out"))
    text = Page((made / "report.html").read_text(encoding="utf-8")).text
    assert "Mid-training" in text and "Fine-tuning" in text
    fingerprints = json.loads((made / "results.json").read_text())["run"]["fingerprints"]
    assert (fingerprints["midtrain"], fingerprints["finetune"]) == (before["fingerprint"], "f" * 64)


def test_a_count_that_an_artifact_lacks_is_named(artifacts: dict[str, Path], tmp_path: Path):
    at = copied(artifacts, tmp_path / "run")
    manifest = json.loads((at["pretrain"] / "manifest.json").read_text())
    del manifest["counts"]["tokens"]
    edit(at["pretrain"] / "manifest.json", counts=manifest["counts"])
    with pytest.raises(UserError, match="lacks 'tokens'"):
        run(config_of(at, tmp_path / "out"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.24, "7.2 s"), (250, "4 min 10 s"), (11_100, "3 h 05 min"), (119.7, "2 min 00 s")]
)
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text


def test_energies_read_well():
    assert (energy(0.0034), energy(2.345)) == ("3.4 Wh", "2.3 kWh")
