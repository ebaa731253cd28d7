"""EvaluateConfig and run(): benchmarks and held-out text for each model of a run."""

import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtrain import artifact
from jaxtrain.document import Document, read_records, source_files
from jaxtrain.evaluate.choices import loglikelihoods
from jaxtrain.evaluate.score import choice_accuracy, standard_error, xz_bits_per_byte
from jaxtrain.feed import heldout
from jaxtrain.model import store
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import arc_easy, piqa, winogrande
from jaxtrain.tasks.task import Task, chance
from jaxtrain.tokenize.tokenizer import Tokenizer

TASKS: dict[str, Task] = {task.name: task for task in (arc_easy.task, piqa.task, winogrande.task)}


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Measure models on benchmarks and on held-out text."""

    models: dict[str, str]
    """Name to folder of each model, in the order in which they were trained."""
    clean: str
    """Folder of the clean artifact, for the held-out text that xz compresses."""
    data: str
    """Folder of the tokenize artifact, for the same text as tokens."""
    out: str
    """Folder to write."""
    benchmarks: str = "data/quickstart"
    """Folder with the benchmarks' files."""
    tasks: tuple[str, ...] = tuple(TASKS)
    """Benchmarks to run."""
    items: int = 250
    """Items of each benchmark at most, the first of its file."""
    batch_size: int = 16
    """Rows of a batch."""
    mesh: MeshConfig = field(default_factory=MeshConfig)


configs: tuple[type, ...] = (EvaluateConfig,)


def run(config: EvaluateConfig) -> Path:
    for name in config.tasks:
        if name not in TASKS:
            raise UserError(f"no task {name!r}; tasks are {', '.join(TASKS)}")
    inputs = {"clean": config.clean, "data": config.data} | {
        f"model {k}": v for k, v in config.models.items()
    }
    inputs |= {f"task {name}": str(TASKS[name].file(config.benchmarks)) for name in config.tasks}
    return artifact.produce(config, inputs, partial(_evaluate, config))


def _evaluate(config: EvaluateConfig, folder: Path) -> dict[str, Any]:
    results: dict[str, list[dict[str, Any]]] = {"tasks": [], "heldout": []}
    xz = _xz(Path(config.clean) / "heldout")
    with jax.set_mesh(meshes.make(config.mesh)):
        for name, path in config.models.items():
            model, tokenizer = store.load(path), Tokenizer.load(Path(path) / "tokenizer")
            results["heldout"] += _heldout(config, name, model, xz)
            results["tasks"] += [_task(config, name, model, tokenizer, TASKS[task]) for task in config.tasks]
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return {"models": len(config.models), "tasks": len(config.tasks)}


def _xz(folder: Path) -> dict[str, float]:
    """xz -9e's bits per byte of the held-out text, by source and of `all` in one file."""
    texts = {
        file.stem: "".join(
            record.text for record in read_records(file, Document) if isinstance(record, Document)
        )
        for file in source_files(folder)
    }
    texts["all"] = "".join(texts.values())
    return {source: xz_bits_per_byte(text.encode()) for source, text in texts.items()}


def _heldout(
    config: EvaluateConfig, name: str, model: Transformer, xz: dict[str, float]
) -> list[dict[str, Any]]:
    found = heldout.measure(model, config.data, batch_size=config.batch_size, length=model.config.max_length)
    for source, of in found.items():
        say(f"  {name}  held-out {source}: {of.bits_per_byte:.3f} bits per byte, xz -9e {xz[source]:.3f}")
    return [
        {
            "model": name,
            "source": source,
            "bits_per_byte": of.bits_per_byte,
            "xz_bits_per_byte": xz[source],
            "bytes": of.bytes,
        }
        for source, of in found.items()
    ]


def _task(
    config: EvaluateConfig, name: str, model: Transformer, tokenizer: Tokenizer, task: Task
) -> dict[str, Any]:
    items = task.load(config.benchmarks)[: config.items]
    values = loglikelihoods(
        model,
        tokenizer,
        items,
        batch_size=config.batch_size,
        length=model.config.max_length,
        what=f"{name} {task.name}",
    )
    lengths = [item.lengths for item in items] if task.metric == "accuracy_per_byte" else None
    grades = choice_accuracy(values, [item.answer for item in items], lengths)
    result = {
        "model": name,
        "task": task.name,
        "metric": task.metric,
        "value": float(np.mean(grades)),
        "standard_error": standard_error(grades),
        "chance": chance(items),
        "items": len(items),
        "shots": 0,
        "version": task.version,
    }
    say(
        f"  {name}  {task.name}: {result['value']:.3f} ± {result['standard_error']:.3f}, "
        f"chance {result['chance']:.3f}"
    )
    return result
