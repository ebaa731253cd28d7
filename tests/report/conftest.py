"""Small artifacts of all nine stages before the report, in the formats of docs/formats.md."""

import json
import lzma
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from census_found import census_found
from evaluated_rows import looked_into

from jaxtrain.document import Conversation, Document, record_id, write_records
from jaxtrain.report.gather import PARTS
from jaxtrain.report.run import ReportConfig, run
from jaxtrain.tokenize import tokenizer

BOOKS = Path(__file__).parents[2] / "data" / "quickstart" / "books.jsonl.xz"
HOSTILE = "<script>alert('x')</script> & \"quoted\""
SOURCES = {
    "books": (275, 4_398_593),
    "code": (198, 3_919_020),
    "web": (127, 796_332),
    "wiki": (95, 2_658_807),
}
REASONS = ("language", "near duplicate", "too short", "benchmark text")
QUESTIONS = ("How can I make a friend happy?", "What is the capital of France?", f"What does {HOSTILE} do?")
ANSWERS = (
    "the the of France is and the city",
    "You can make a friend happy with a kind word and a warm smile.",
)
FLAG = "answers are 0.49 times as long as at first"


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_run(tmp_path_factory.mktemp("run") / "runs" / "small")


@pytest.fixture(scope="session")
def report(artifacts: dict[str, Path]) -> Path:
    folder = artifacts["collect"].parent
    return run(ReportConfig(run=str(folder), out=str(folder / "10_report")))


def write_run(folder: Path) -> dict[str, Path]:
    """Write all nine under `folder`, named like a recipe's; the same bytes every time."""
    at = {name: folder / f"{number}_{name}" for number, name in enumerate(SECONDS, 1)}
    rng = random.Random(0)
    before = "the material"
    for name, counts in _write_files(at, rng).items():
        manifest = {
            "stage": PARTS[name].stage,
            "config": {"class": PARTS[name].kind or name, **({"model": MODEL} if name == "pretrain" else {})},
            "inputs": {"data": before},
            "fingerprint": record_id("fingerprint", name) * 4,
            "source": "0" * 64,
            "version": "0.1.0",
            "counts": counts,
            "files": {},
        }
        before = manifest["fingerprint"]
        _json(at[name] / "manifest.json", manifest)
        _json(at[name] / "cost.json", {"seconds": SECONDS[name], "command": "jaxtrain run small"})
    return at


SECONDS = {
    "collect": 9.4,
    "clean": 31.0,
    "tokenize": 2.2,
    "pretrain": 512.0,
    "finetune": 88.1,
    "rate": 74.5,
    "reward": 49.0,
    "ppo": 204.7,
    "evaluate": 61.3,
}
MODEL = {
    "vocab_size": 4096,
    "layers": 4,
    "d_model": 256,
    "heads": 4,
    "kv_heads": 4,
    "head_dim": 64,
    "d_hidden": 704,
    "max_length": 256,
}


def _write_files(at: dict[str, Path], rng: random.Random) -> dict[str, dict[str, Any]]:
    for folder in at.values():
        folder.mkdir(parents=True)
    return {
        "collect": _collect(at["collect"]),
        "clean": _clean(at["clean"], rng),
        "tokenize": _tokenize(at["tokenize"]),
        "pretrain": _pretrain(at["pretrain"], rng),
        "finetune": _finetune(at["finetune"], rng),
        "rate": _rate(at["rate"], rng),
        "reward": _reward(at["reward"])
        | {
            "heldout_accuracy": 0.781,
            "standard_error": 0.016,
            "untrained_accuracy": 0.507,
            "length_accuracy": 0.538,
            "ceiling": 0.862,
            "ceiling_of": "true utility",
            "pairs_train": 2880,
            "pairs_heldout": 720,
            "human_accuracy": 0.551,
            "human_standard_error": 0.022,
        },
        "ppo": _ppo(at["ppo"], rng),
        "evaluate": _evaluate(at["evaluate"], rng),
    }


def _chapters() -> list[str]:
    with lzma.open(BOOKS, "rt", encoding="utf-8") as lines:
        text = json.loads(next(lines))["text"]
    return [text[start : start + 3000] for start in range(0, 36_000, 3000)]


def _collect(folder: Path) -> dict[str, Any]:
    documents = [
        Document(id=record_id("books", str(n)), text=text, source="books", license="public-domain")
        for n, text in enumerate(_chapters())
    ]
    write_records(folder / "documents" / "books.parquet", Document, documents)
    _json(
        folder / "unread.json",
        {"books": {}, "code": {"not UTF-8": 2}, "web": {"no free licence": 41}, "wiki": {}},
    )
    return {name: {"documents": count, "bytes": size, "unread": 0} for name, (count, size) in SOURCES.items()}


def _clean(folder: Path, rng: random.Random) -> dict[str, Any]:
    documents = [
        Document(id=record_id("books", str(n)), text=text, source="books")
        for n, text in enumerate(_chapters())
    ]
    write_records(folder / "documents" / "books.parquet", Document, documents[:-1])
    write_records(folder / "heldout" / "books.parquet", Document, documents[-1:])
    messages = [{"role": "user", "content": QUESTIONS[0]}, {"role": "assistant", "content": ANSWERS[1]}]
    conversation = Conversation(id=record_id("alpaca", "0"), messages=messages, source="alpaca")
    write_records(folder / "conversations" / "alpaca.parquet", Conversation, [conversation])
    funnel = {}
    for name, (kept, size) in (SOURCES | {"alpaca": (985, 778_848), "dolly": (1000, 757_650)}).items():
        dropped = {reason: rng.randrange(1, kept // 6) for reason in sorted(rng.sample(REASONS, 3))}
        heldout = 0 if name in ("alpaca", "dolly") else kept // 20
        total = kept + heldout + sum(dropped.values())
        funnel[name] = {
            "in": total,
            "kept": kept,
            "heldout": heldout,
            "dropped": dropped,
            "bytes_in": size * total // kept,
            "bytes_kept": size,
            "bytes_heldout": size * heldout // kept,
        }
    _json(folder / "funnel.json", funnel)
    _json(folder / "census.json", census_found(funnel, tuple(SOURCES), HOSTILE))
    _json(folder / "mixture.json", dict.fromkeys(SOURCES, 0.25))
    return {"funnel": funnel}


def _tokenize(folder: Path) -> dict[str, Any]:
    trained = tokenizer.train(_chapters(), 400)
    trained.save(folder / "tokenizer")
    lengths = np.array([len(trained.encode(text)) for text in _chapters()], np.int64)
    (folder / "documents" / "books").mkdir(parents=True)
    np.save(folder / "documents" / "books" / "lengths.npy", lengths)

    def counts(sources: dict[str, tuple[int, int]], ratio: float) -> dict[str, Any]:
        return {
            name: {
                "bytes": size,
                "bytes_per_token": ratio,
                "dropped": {},
                "records": count,
                "tokens": int(size / ratio),
            }
            for name, (count, size) in sources.items()
        }

    return {
        "documents": counts(SOURCES, 3.35),
        "heldout": counts(SOURCES, 3.2),
        "vocab_size": 4096,
        "conversations": counts({"alpaca": (985, 778_848), "dolly": (1000, 757_650)}, 3.1),
    }


def _pretrain(folder: Path, rng: random.Random) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for step in range(1, 401):
        loss = 3.4 + 5.4 * math.exp(-step / 45) + rng.gauss(0, 0.05)
        lines.append(
            {
                "step": step,
                "loss": loss,
                "grad_norm": 0.6,
                "targets": 4090.0,
                "accepted": 1.0,
                "seconds": 8.3 if step == 1 else 1.25 + rng.random() / 10,
            }
        )
        if step % 100 == 0:
            level = 1.9 + 0.9 * math.exp(-step / 120)
            by_source = {
                f"bits_per_byte/{name}": level + shift
                for name, shift in zip(SOURCES, (-0.05, -0.3, 0.2, 0.1), strict=True)
            }
            lines.append({"step": step, "kind": "heldout", "bits_per_byte": level, **by_source})
    _lines(folder / "metrics.jsonl", lines)
    early, late = (
        "19 block was theint. cr and the:\n  haveuror. who",
        "was built on the river, and the people of the town",
    )
    _lines(
        folder / "samples.jsonl",
        [
            {"step": step, "prompt": prompt, "completion": text}
            for step, text in ((100, early), (400, late))
            for prompt in ("The city of ", "She said ", "def ")
        ],
    )
    return {
        "steps": 400,
        "tokens": 400 * 4096,
        "matmul_parameters": 4_259_840,
        "heldout": {key: value for key, value in lines[-1].items() if key not in ("step", "kind")},
    }


def _finetune(folder: Path, rng: random.Random) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for step in range(1, 81):
        lines.append(
            {
                "step": step,
                "loss": 3.1 + 0.8 * math.exp(-step / 20) + rng.gauss(0, 0.06),
                "accepted": 1.0,
                "targets": 1900.0,
                "grad_norm": 0.8,
                "seconds": 1.0,
            }
        )
        if step % 40 == 0:
            lines.append({"step": step, "kind": "heldout", "loss": 3.3 - step / 800})
    _lines(folder / "metrics.jsonl", lines)
    _lines(
        folder / "samples.jsonl",
        [
            {"step": step, "prompt": prompt, "completion": text}
            for step, text in ((40, ANSWERS[0]), (80, ANSWERS[1]))
            for prompt in QUESTIONS
        ],
    )
    return {"steps": 80, "heldout_loss": 3.2}


def _rate(folder: Path, rng: random.Random) -> dict[str, Any]:
    rows = [
        {
            "prompt": [{"role": "user", "content": question}],
            "completions": [*ANSWERS, "Paris.", HOSTILE],
            "completion_ids": [[72, 105]] * 4,
            "ranks": rng.sample(range(1, 5), 4),
            "rater": "simulated rater 1",
            "simulated": True,
        }
        for question in QUESTIONS
    ]
    for name in ("train.parquet", "heldout.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return {
        "prompts": 600,
        "completions": 2400,
        "judgements": 700,
        "raters": 3,
        "simulated": True,
        "noise": 0.2,
        "agreement": {"pairwise": 0.792, "pairs": 600, "krippendorff_alpha": 0.61},
        "left_bias": {"share": 0.503, "low": 0.488, "high": 0.518, "pairs": 4200},
        "utility": {"mean": -0.713, "sd": 0.512, "length_correlation": 0.11},
    }


def _reward(folder: Path) -> dict[str, Any]:
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": 0.7 - step / 400, "accepted": 1.0} for step in range(1, 81)
    ]
    lines += [{"step": step, "kind": "heldout", "accuracy": 0.6 + step / 500} for step in (40, 80)]
    _lines(folder / "metrics.jsonl", lines)
    rows = [
        {"confidence": 0.6, "accuracy": 0.58, "pairs": 500},
        {"confidence": 0.8, "accuracy": 0.9, "pairs": 220},
    ]
    gain = {"mean": 0.243, "low": 0.2, "high": 0.285, "excludes_zero": True}
    return {"gain_over_length": gain, "calibration": rows, "calibration_error": 0.044}


def _ppo(folder: Path, rng: random.Random) -> dict[str, Any]:
    lines = []
    for step in range(1, 41):
        kl = 9 * (1 - math.exp(-step / 18)) * (1 + rng.gauss(0, 0.03))
        lines.append(
            {
                "step": step,
                "kind": "round",
                "round": step,
                "reward": 0.26 * kl + rng.gauss(0, 0.1),
                "kl": kl,
                "grad_norm": 0.4,
                "utility": -0.71 + 0.9 * math.sqrt(kl / 9) - 0.02 * kl + rng.gauss(0, 0.03),
                "entropy": 3.9 - 0.02 * step,
                "length": 28.0,
                "seconds": 5.1,
            }
        )
    flag = {"step": 30, "kind": "flag", "rule": "length", "value": 9.0, "limit": 11.0, "meaning": FLAG}
    _lines(folder / "metrics.jsonl", [*lines[:30], flag, *lines[30:]])
    _lines(
        folder / "samples.jsonl",
        [
            {"step": step, "prompt": prompt, "completion": text}
            for step, text in ((0, ANSWERS[0]), (40, ANSWERS[1]))
            for prompt in QUESTIONS
        ],
    )
    return {
        "utility_before": -0.713,
        "utility_sd_before": 0.512,
        "utility_after": -0.06,
        "utility_gain_sd": 1.275,
        "kl": 8.1,
        "measured": 256,
        "reward_before": 0.0,
        "reward_after": 2.1,
        "simulated": True,
    }


def _evaluate(folder: Path, rng: random.Random) -> dict[str, Any]:
    tasks = [
        {
            "model": model,
            "task": task,
            "metric": metric,
            "value": chance + 0.01 * rng.randrange(-2, 6),
            "standard_error": 0.021,
            "chance": chance,
            "items": 500,
            "shots": 0,
            "version": 1,
        }
        for model in ("pretrained", "fine-tuned", "PPO")
        for task, metric, chance in (
            ("arc_easy", "accuracy_per_byte", 0.25),
            ("piqa", "accuracy_per_byte", 0.5),
            ("winogrande", "accuracy", 0.5),
        )
    ]
    bits = {
        "books": (1.88, 2.61, 147_501),
        "code": (1.61, 2.02, 80_962),
        "web": (2.14, 2.77, 61_938),
        "wiki": (2.05, 2.58, 148_333),
        "all": (1.92, 2.43, 438_734),
    }
    heldout = [
        {
            "model": model,
            "source": source,
            "bits_per_byte": ours + worse,
            "xz_bits_per_byte": xz,
            "bytes": size,
        }
        for model, worse in (("pretrained", 0.0), ("fine-tuned", 0.21), ("PPO", 0.3))
        for source, (ours, xz, size) in bits.items()
    ]
    _json(folder / "results.json", {"tasks": tasks, "heldout": heldout} | looked_into(HOSTILE))
    return {"rows": len(tasks)}


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
