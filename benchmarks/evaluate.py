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
import sys
import time
from pathlib import Path
from typing import Any

from record import record

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
    "arc_easy": ("accuracy", 0.5412),
    "arc_challenge": ("accuracy_per_byte", 0.2773),
    "hellaswag": ("accuracy_per_byte", 0.4299),
    "piqa": ("accuracy_per_byte", 0.6692),
}
"""SmolLM2-135M-Instruct under lm-eval without examples: the baseline column of the model card of
huggingface.co/lldois/SmolLM2-135M-Reasoning-SLERP-Champion."""


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
    """Scores of SmolLM2-135M-Instruct beside published ones."""
    found = {}
    for task in tasks or PUBLISHED:
        begun = time.monotonic()
        results = _evaluate(model, data, f"runs/benchmark/published_{task}", tasks=(task,), items=int(items))
        row = results["tasks"][0]
        metric, value = PUBLISHED[task]
        found[task] = {"metric": metric, "published": value, **row["scores"][metric]}
        found[task]["seconds"] = round(time.monotonic() - begun)
        print(task, found[task], flush=True)
    record(
        "evaluate_published", ["jax", "jaxtrain"], {"model": "SmolLM2-135M-Instruct (Q4_1)", "tasks": found}
    )


def _evaluate(model: str, data: str, out: str, **options: Any) -> dict[str, Any]:
    from jaxtrain.evaluate.run import EvaluateConfig, run

    config = EvaluateConfig(models={"model": model}, benchmarks=data, out=out, **options)
    return json.loads((run(config) / "results.json").read_text())


if __name__ == "__main__":
    {"files": files, "published": published}[sys.argv[1]](*sys.argv[2:])
