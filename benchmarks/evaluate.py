"""Evaluation measured: published scores, speed beside lm-eval's `hf`, memorisation, bias.

    python benchmarks/evaluate.py files ../shared/material sets    # data sets by their names here
    python benchmarks/evaluate.py published smollm2_135m sets      # folder that benchmarks/smollm2.py writes
    python benchmarks/evaluate.py speed smollm2_135m sets          # needs torch, transformers, lm-eval
    python benchmarks/evaluate.py memorization                     # two training runs, about ten minutes
    python benchmarks/evaluate.py bias smollm2_135m sets

Results go to benchmarks/results/evaluate_*.json; what they say stands in benchmarks/notes.md.
"""

import gzip
import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from record import RESULTS, record

NAMES = {
    "HumanEval.jsonl.gz": "humaneval.jsonl.gz",
    "TruthfulQA.csv": "truthfulqa.csv",
    "gsm8k-test.jsonl": "gsm8k_test.jsonl",
    "gsm8k-train.jsonl.gz": "gsm8k_train.jsonl.gz",
    "llmfoundry-lambada_openai.jsonl.gz": "lambada.jsonl.gz",
    "olmoeval-boolq-validation.jsonl.gz": "boolq.jsonl.gz",
    "olmoeval-hellaswag-validation.jsonl.gz": "hellaswag.jsonl.gz",
    "olmoeval-mmlu-dev.jsonl.gz": "mmlu_dev.jsonl.gz",
    "olmoeval-mmlu-test.jsonl.gz": "mmlu_test.jsonl.gz",
    "olmoeval-piqa-validation.jsonl.gz": "piqa.jsonl.gz",
    "olmoeval-sciq-validation.jsonl.gz": "sciq.jsonl.gz",
    "olmoeval-social_i_qa-validation.jsonl.gz": "siqa.jsonl.gz",
    "olmoeval-winogrande-validation.jsonl.gz": "winogrande.jsonl.gz",
}
"""Files of the offline material, and the names that the tasks look for."""
PUBLISHED = {
    "model card": {
        "arc_easy, arc_challenge": ("accuracy_per_byte", 0.373),
        "hellaswag": ("accuracy_per_byte", 0.409),
        "piqa": ("accuracy_per_byte", 0.663),
        "mmlu_cloze": ("accuracy_per_byte", 0.293),
    },
    "lm-eval": {
        "arc_easy": ("accuracy", 0.5412),
        "arc_challenge": ("accuracy_per_byte", 0.2773),
        "hellaswag": ("accuracy_per_byte", 0.4299),
        "piqa": ("accuracy_per_byte", 0.6692),
    },
}
"""SmolLM2-135M-Instruct without examples: by its makers, with lighteval (huggingface.co/HuggingFaceTB/
SmolLM2-135M-Instruct; of two tasks the mean), and by others, with lm-eval (the baseline column of
huggingface.co/lldois/SmolLM2-135M-Reasoning-SLERP-Champion)."""


STEPS = 300
"""Of 2,048 tokens: about twice round the texts with their copies."""


def files(material: str, out: str) -> None:
    """The data sets under the names that the tasks look for; ARC's test sets in the hub's form."""
    source, folder = Path(material), Path(out) / "benchmarks"
    (folder / "bbh").mkdir(parents=True)
    for name, ours in NAMES.items():
        shutil.copy(source / "benchmarks" / name, folder / ours)
    for file in (source / "benchmarks" / "bbh").glob("*.json.gz"):
        shutil.copy(file, folder / "bbh")
    for level in ("easy", "challenge"):
        with gzip.open(source / "benchmarks" / f"llmfoundry-arc_{level}.jsonl.gz", "rt") as lines:
            rows = [json.loads(line) for line in lines]
        with gzip.open(folder / f"arc_{level}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(_arc(row)) + "\n" for row in rows)
    shutil.copytree(source / "bias", Path(out) / "bias")
    shutil.copy(
        source / "preferences" / "hh-rlhf-harmless-base-test.jsonl.gz",
        Path(out) / "bias" / "harmful_prompts.jsonl.gz",
    )


def _arc(row: dict[str, Any]) -> dict[str, Any]:
    labels = "ABCDE"[: len(row["choices"])]
    question = row["query"].removeprefix("Question: ").removesuffix("\nAnswer:").strip()
    return {
        "question": question,
        "choices": {"text": row["choices"], "label": list(labels)},
        "answerKey": labels[row["gold"]],
    }


def published(model: str, data: str, items: str = "1000", *tasks: str) -> None:
    """Scores of SmolLM2-135M-Instruct beside published ones; tasks that were run before keep theirs."""
    kept = RESULTS / "evaluate_published.json"
    found = json.loads(kept.read_text())["tasks"] if kept.is_file() else {}
    for task in tasks or ("arc_easy", "arc_challenge", "piqa", "mmlu_cloze", "hellaswag"):
        begun = time.monotonic()
        results = _evaluate(
            model, data, f"runs/benchmark/published_{task}", tasks=(task,), items=int(items), batch_size=4
        )
        row = results["tasks"][0]
        found[task] = {"items": row["items"], "scores": row["scores"]}
        found[task]["seconds"] = round(time.monotonic() - begun)
        print(task, found[task], flush=True)
    beside = [
        {"source": source, "tasks": names, "metric": metric, "published": value, "value": ours}
        | {"difference": round(ours - value, 4)}
        for source, rows in PUBLISHED.items()
        for names, (metric, value) in rows.items()
        if (ours := _mean_score(found, names.split(", "), metric)) is not None
    ]
    found = {"model": "SmolLM2-135M-Instruct (Q4_1)", "tasks": found, "beside": beside}
    record("evaluate_published", ["jax", "jaxtrain"], found)


def _mean_score(found: dict[str, Any], tasks: list[str], metric: str) -> float | None:
    """None where one of the tasks has not been run."""
    if not all(task in found for task in tasks):
        return None
    return round(sum(found[task]["scores"][metric]["value"] for task in tasks) / len(tasks), 4)


def speed(model: str, data: str, items: str = "24", tries: str = "3") -> None:
    """Seconds for the likelihoods of the same choices: ours, and lm-eval's `hf` at each batch size.

    Then ours and theirs at its best size take turns; the ratio is the median of those pairs.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from jaxtrain.evaluate.choices import Scorer
    from jaxtrain.evaluate.harness import HarnessModel
    from jaxtrain.tasks.catalog import TASKS
    from jaxtrain.tokenize.tokenizer import Tokenizer
    from jaxtrain.weights import load_pretrained

    ours = HarnessModel(Scorer(load_pretrained(model), Tokenizer.load(model), length=2048, batch_size=4))
    theirs = {
        size: HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=size)
        for size in (1, 4, 16, 64)
    }
    found: dict[str, Any] = {"items": int(items)}
    for name in ("hellaswag", "sciq"):
        requests = [
            Instance("loglikelihood", {}, pair, at)
            for at, item in enumerate(TASKS[name].load(data, int(items)))
            for pair in zip(item.contexts, item.continuations, strict=True)
        ]
        values, compiling = _timed(ours, requests)
        first = {size: _timed(hf, requests)[1] for size, hf in theirs.items()}
        best = min(first, key=lambda size: first[size])
        pairs = [(_timed(ours, requests)[1], _timed(theirs[best], requests)) for _ in range(int(tries))]
        nats = zip(values, pairs[0][1][0], strict=True)
        rows = {
            "choices": len(requests),
            "ours, compiling": compiling,
            **{f"hf, batch {size}": seconds for size, seconds in first.items()},
            "pairs": [(mine, seconds) for mine, (_, seconds) in pairs],
            "ratio to the best": statistics.median(seconds / mine for mine, (_, seconds) in pairs),
            "largest difference, nats": max(abs(mine - other) for (mine, _), (other, _) in nats),
        }
        found[name] = rows
        print(name, rows, flush=True)
    record("evaluate_speed", ["jax", "torch", "transformers", "lm-eval"], found)


def _timed(model: Any, requests: list[Any]) -> tuple[list[Any], float]:
    begun = time.monotonic()
    values = model.loglikelihood(requests, disable_tqdm=True)
    return values, time.monotonic() - begun


def bias(model: str, data: str, items: str = "200") -> None:
    """CrowS-Pairs, WinoBias, BBQ and refusals of SmolLM2-135M-Instruct."""
    from jaxtrain.evaluate.bias import BiasConfig

    folder = str(Path(data) / "bias")
    options = {"tasks": (), "bias": BiasConfig(folder=folder, items=int(items)), "batch_size": 4}
    results = _evaluate(model, data, "runs/benchmark/bias", **options)
    record("evaluate_bias", ["jax", "jaxtrain"], {"bias": results["bias"]})


def memorization() -> None:
    """Two runs of as many steps on the same texts: as collected, with copies, and as clean leaves them."""
    from jaxtrain.clean import Code, Normalize, balance, web
    from jaxtrain.clean import run as clean
    from jaxtrain.collect import run as collect
    from jaxtrain.collect.books import BookSource
    from jaxtrain.collect.tables import TableSource
    from jaxtrain.collect.web import WebSource
    from jaxtrain.evaluate.memorization import MemorizationConfig, PlantConfig, plant

    runs = Path("runs/benchmark")
    books = BookSource(name="books", paths=("data/quickstart/books.jsonl.xz",))
    collect.run(collect.CollectConfig(sources=(books,), out=str(runs / "books")))
    plant(
        PlantConfig(
            documents=str(runs / "books" / "documents" / "books.parquet"),
            out=str(runs / "planted"),
            texts=8,
            characters=600,
        )
    )
    begun, both = time.monotonic(), {}
    for name in ("copies", "deduplicated"):
        run = runs / name
        sources = (
            TableSource(name="planted", paths=(str(runs / "planted" / "planted.jsonl"),)),
            WebSource(name="web", paths=("data/quickstart/web.warc.gz",), license="CC-BY-SA-3.0"),
        )
        collect.run(collect.CollectConfig(sources=sources, out=str(run / "1_collect")))
        lenient = (Normalize(code=True), Code())
        cleaned = clean.CleanConfig(
            documents=str(run / "1_collect"),
            filters={"planted": lenient, "web": web("en")},
            mixture={"planted": 1.0, "web": 1.0},
            balance=balance.Balance(temperature=1.0),
            heldout_bytes=40_000,
            out=str(run / "2_clean"),
        )
        clean.run(cleaned)
        if name == "copies":
            _put_copies_back(run)
        both[name] = _train_and_ask(run, MemorizationConfig(planted=str(runs / "planted"), references=511))
    seconds = round(time.monotonic() - begun)
    record("evaluate_memorization", ["jax", "jaxtrain"], {"seconds": seconds, **both})


def _put_copies_back(run: Path) -> None:
    """The planted documents as collected in the place of what clean left of them; weights by bytes again."""
    from jaxtrain import artifact
    from jaxtrain.document import read_rows, source_files

    clean = run / "2_clean"
    planted = "documents/planted.parquet"
    shutil.copy(run / "1_collect" / planted, clean / planted)
    manifest = artifact.read_manifest(clean)
    assert manifest is not None
    manifest["files"][planted]["size"] = (clean / planted).stat().st_size
    (clean / "manifest.json").write_text(json.dumps(manifest | {"fingerprint": "with copies"}))
    sizes = {
        file.stem: sum(len(row["text"].encode()) for row in read_rows(file, ["text"]))
        for file in source_files(clean / "documents")
    }
    mixture = {source: size / sum(sizes.values()) for source, size in sizes.items()}
    (clean / "mixture.json").write_text(json.dumps(mixture))


def _train_and_ask(run: Path, memorization: Any) -> dict[str, Any]:
    from jaxtrain.model.config import ModelConfig
    from jaxtrain.pretrain.run import PretrainConfig
    from jaxtrain.pretrain.run import run as pretrain
    from jaxtrain.tokenize.run import TokenizeConfig
    from jaxtrain.tokenize.run import run as tokenize
    from jaxtrain.train.config import TrainConfig
    from jaxtrain.train.optimizer import OptimizerConfig

    tokenize(
        TokenizeConfig(
            documents=str(run / "2_clean"), out=str(run / "3_tokenize"), vocab_size=1024, sample_bytes=500_000
        )
    )
    pretrain(
        PretrainConfig(
            data=str(run / "3_tokenize"),
            model=ModelConfig(
                vocab_size=1024,
                layers=4,
                d_model=128,
                heads=4,
                kv_heads=4,
                head_dim=32,
                d_hidden=352,
                max_length=256,
            ),
            train=TrainConfig(
                optimizer=OptimizerConfig(lr=1e-2, warmup_steps=20, schedule="linear", final_lr_share=0.1),
                steps=STEPS,
                evaluate_every=STEPS // 3,
                checkpoint_every=STEPS,
            ),
            batch_size=8,
            max_epochs=100,
            out=str(run / "4_pretrain"),
        )
    )
    results = _evaluate(
        str(run / "4_pretrain"),
        "data/quickstart",
        str(run / "9_evaluate"),
        tasks=(),
        clean=str(run / "2_clean"),
        data=str(run / "3_tokenize"),
        memorization=memorization,
    )
    return {part: results[part] for part in ("extraction", "exposure", "heldout")}


def _evaluate(model: str, sets: str, out: str, **options: Any) -> dict[str, Any]:
    from jaxtrain.evaluate.run import EvaluateConfig, run

    config = EvaluateConfig(models={"model": model}, benchmarks=sets, out=out, **options)
    return json.loads((run(config) / "results.json").read_text())


if __name__ == "__main__":
    {"files": files, "published": published, "memorization": memorization, "speed": speed, "bias": bias}[
        sys.argv[1]
    ](*sys.argv[2:])
