"""EvaluateConfig and run(): benchmarks, held-out text, memorisation and bias of each model of a run."""

import dataclasses
import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax

from jaxtrain import artifact, weights
from jaxtrain.config import Stage
from jaxtrain.decode.answers import chats
from jaxtrain.evaluate import benchmarks, bias, core, heldout, memorization
from jaxtrain.evaluate.bias import BiasConfig
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.evaluate.core import CoreConfig
from jaxtrain.evaluate.memorization import MemorizationConfig
from jaxtrain.fields import Operational
from jaxtrain.runtime import distributed
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import say
from jaxtrain.tasks import catalog, hub
from jaxtrain.tasks.task import Task

Results = dict[str, list[dict[str, Any]]]
LONGEST_ANSWER = 96
"""Tokens of an answer to one of `questions`."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Stage):
    """Measure models on benchmarks, on held-out text, and by what they memorised and prefer."""

    models: dict[str, str]
    """Name to folder of each model (an artifact or a Hugging Face folder), in the order of their training."""
    clean: str = ""
    """Folder of the clean artifact: held-out text, training text, its languages. Empty: benchmarks alone."""
    data: str = ""
    """Folder of the tokenize artifact, for the same text as tokens."""
    benchmarks: str = "data/quickstart"
    """Folder with the benchmarks' files, or `hub`: fetched by the package `datasets` into data/hub."""
    tasks: tuple[str, ...] = ("arc_easy", "piqa", "winogrande")
    """Benchmarks to run, or .py files that define a `task`."""
    questions: tuple[str, ...] = ()
    """Asked of every model, and answered greedily, to be read side by side; nothing is graded."""
    items: Count = 250
    """Items of each benchmark at most, the first of its file."""
    unconditional: bool = False
    """Score choices also relative to how likely they are by themselves; each is then read twice."""
    contamination: bool = False
    """Score items that a training document quotes apart from those that none does."""
    harness: str = ""
    """Tasks of lm-eval to run as well, comma-separated: hellaswag,arc_easy (needs the extra `eval`)."""
    harness_include: str = ""
    """Folder with task files of lm-eval's own format, before those that it comes with."""
    core: CoreConfig = field(default_factory=CoreConfig)
    memorization: MemorizationConfig = field(default_factory=MemorizationConfig)
    bias: BiasConfig = field(default_factory=BiasConfig)
    batch_size: Count = 16
    """Rows of `length` tokens of a batch; of shorter rows there are more."""
    dtype: Literal["model", "float32", "bfloat16"] = "model"
    """Of weights and activations; model: as the folder says."""
    length: int = 0
    """Most tokens of a prompt with its answer; 0: what the model was trained on, at most 2048."""
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)


def run(config: EvaluateConfig) -> Path:
    others = distributed.join()
    tasks = [catalog.find(name) for name in config.tasks]
    if config.benchmarks == "hub":
        config = dataclasses.replace(config, benchmarks=hub.fetch(tasks, others))
    _check(config)
    inputs = {"clean": config.clean, "data": config.data} if config.clean else {}
    inputs |= {f"model {name}": folder for name, folder in config.models.items()}
    inputs |= catalog.files(config.tasks, config.benchmarks, without="practice")
    given = {
        "CORE's bundle": config.core.folder,
        "planted": config.memorization.planted,
        "bias": config.bias.folder,
        "classifier": config.bias.classifier,
        "harness_include": config.harness_include,
    }
    inputs |= {name: path for name, path in given.items() if path}
    return artifact.produce(config, inputs, partial(_evaluate, config, tasks), others=others)


def _check(config: EvaluateConfig) -> None:
    if bool(config.clean) != bool(config.data):
        raise UserError("held-out text needs both `clean` and `data`: give both, or neither")
    if not config.clean and (config.contamination or config.memorization.sequences):
        raise UserError("contamination and memorization.sequences need training text: `clean`, `data`")


def _evaluate(config: EvaluateConfig, tasks: list[Task], folder: Path) -> dict[str, Any]:
    keep_compiled()
    results: Results = defaultdict(list, tasks=[], heldout=[])
    texts = heldout.Texts(config.clean) if config.clean else None
    quoted = benchmarks.contaminated(tasks, config.benchmarks, config.clean) if config.contamination else {}
    with jax.set_mesh(meshes.make(config.mesh)):
        for name, path in config.models.items():
            source = weights.open(path)
            length = min(config.length or 2048, source.config.max_length)
            model = source.load_to_use(config.dtype)
            scorer = Scorer(model, source.tokenizer, length=length, batch_size=config.batch_size)
            asked = {"items": config.items, "unconditional": config.unconditional, "what": name}
            rows = [
                benchmarks.evaluate(scorer, task, config.benchmarks, is_quoted=quoted.get(task.name), **asked)
                for task in tasks
            ]
            found = {"tasks": rows}
            if rows:
                whole = benchmarks.aggregate(rows)
                found["aggregate"] = [whole]
                say(f"  {name}  all tasks, centred: {whole['value']:.3f} ± {whole['standard_error']:.3f}")
            if texts is not None:
                found |= heldout.measure(scorer, config.data, texts, what=name)
            found |= core.measure(scorer, config.core, what=name)
            found |= memorization.measure(scorer, config.memorization, config.data, what=name)
            found |= bias.measure(scorer, config.bias, what=name)
            if config.questions:
                asked, most = [*chats(config.questions).values()], min(LONGEST_ANSWER, length // 2)
                said = zip(
                    config.questions, scorer.written(asked, max_new=most, temperature=0.0), strict=True
                )
                found["answers"] = [{"question": question, "answer": text} for question, text in said]
            if config.harness:
                from jaxtrain.evaluate import harness  # needs the extra

                names = config.harness.split(",")
                found["harness"] = harness.run(scorer, names, config.harness_include, config.items)
            for part, rows in found.items():
                results[part] += [{"model": name, **row} for row in rows]
    if config.clean and config.bias.folder:
        results["representation"] = bias.representation(config.clean)
    if jax.process_index() == 0:
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return {"models": len(config.models), "tasks": len(tasks)}
