"""CORE's items beside nanochat's own code, and the score of a published model.

    git clone https://github.com/karpathy/nanochat            also mlfoundations/dclm, mosaicml/llm-foundry
    python benchmarks/core.py bundle dclm llm-foundry core_bundle
    python benchmarks/core.py compare nanochat core_bundle smollm2_135m --layers 2     (in .venv-peers)
    python benchmarks/core.py score core_bundle smollm2_135m --items 100

bundle: what those two hold of the evaluation bundle; a file that a checkout lacks is absent there too.
compare: mean log-likelihoods and choices of one model (a Hugging Face folder), item by item, in
benchmarks/results/core.json; --layers takes the model's first layers, which is quick and as good a test of
the code, and --tokens leaves out what is long (PyTorch's logits are of every token). score: ours alone, in
benchmarks/results/core_score.json.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import jax
import yaml
from record import record

from jaxtrain import weights
from jaxtrain.evaluate import core
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig

LENGTH = 4096
"""Tokens of an item with its examples at most: no item is cut, and nanochat cuts none."""
CLEAR = 1e-3
"""Nats by which a choice has to lead for it to count."""


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    verbs = parser.add_subparsers(required=True)
    for verb, names in (
        (bundle, ("dclm", "foundry", "to")),
        (compare, ("nanochat", "bundle", "model")),
        (score, ("bundle", "model")),
    ):
        of = verbs.add_parser(verb.__name__)
        of.set_defaults(verb=verb)
        for name in names:
            of.add_argument(name)
        of.add_argument("--items", type=int, default=100, help="of each task at most")
        of.add_argument("--tokens", type=int, default=8_000, help="compare: of each task at most")
        of.add_argument("--layers", type=int, default=0)
        of.add_argument("--work", default="core_model", help="where the model of fewer layers is written")
    asked = parser.parse_args()
    asked.verb(asked)


def bundle(asked: argparse.Namespace) -> None:
    """The bundle's files from their origins: tasks and guesses of DCLM, items of llm-foundry."""
    evaluation, to = Path(asked.dclm) / "eval", Path(asked.to)
    tasks = yaml.safe_load((evaluation / "mmlu_and_lowvar.yaml").read_text())["icl_tasks"]
    tasks = [task for task in tasks if task["label"] in core.TASKS]
    for task in tasks:
        task["dataset_uri"] = task["dataset_uri"].removeprefix("local_data/")
        source = Path(asked.foundry) / "scripts" / "eval" / "local_data" / task["dataset_uri"]
        if source.is_file():
            file = to / "eval_data" / task["dataset_uri"]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(source.read_bytes())
    (to / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": tasks}))
    # the table of guesses that the bundle has is DCLM's first one
    (to / "eval_meta_data.csv").write_bytes((evaluation / "eval_meta_data_v1.csv").read_bytes())
    parts, absent = core.read(to)
    print(f"{len(parts)} of {len(core.TASKS)} tasks; absent: {', '.join(absent) or 'none'}")


def scorer(folder: str) -> Scorer:
    source = weights.open(folder)
    return Scorer(source.load_to_use("float32"), source.tokenizer, length=LENGTH, batch_size=2)


def score(asked: argparse.Namespace) -> None:
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        config = core.CoreConfig(folder=asked.bundle, items=asked.items)
        (found,) = core.measure(scorer(asked.model), config, Path(asked.model).name)["core"]
    half = 1.96 * found["standard_error"]
    interval = [found["value"] - half, found["value"] + half]
    record("core_score", ["jax"], {"command": command(), **found, "interval_95": interval})


def compare(asked: argparse.Namespace) -> None:
    theirs = Theirs(asked)
    rows = []
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        ours = scorer(theirs.folder)
        parts, absent = core.read(asked.bundle)
        for part in parts:
            first = part.texts(part.items(0), 0)
            size = sum(len(ids) for ids in ours.tokenizer.encode_batch(first))
            if count := min(asked.items, len(part.items(0)), asked.tokens // size):
                items = part.items(max(count, part.shots + 1))
                rows.append(theirs.beside(ours, part, items, count))
                print(json.dumps(rows[-1]), flush=True)
    found = {
        "command": command(),
        **{name: sum(row[name] for row in rows) for name in ("items", "clear", "same")},
        "most_apart_nats_a_token": max(row["most_apart"] for row in rows),
        "tasks": rows,
        "absent": absent,
        "too_long": [part.label for part in parts if all(row["task"] != part.label for row in rows)],
    }
    record("core", ["jax", "torch", "transformers"], found)


class Theirs:
    """nanochat's functions, and what they made of the last item."""

    def __init__(self, asked: argparse.Namespace):
        import torch
        from transformers import AutoModelForCausalLM

        self.torch, self.folder = torch, asked.model
        if asked.layers:
            self.folder = shortened(asked.model, asked.layers, asked.work)
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        self.max_seq_len, self.seen = LENGTH, {}
        spec = importlib.util.spec_from_file_location(
            "core_eval", Path(asked.nanochat) / "nanochat/core_eval.py"
        )
        assert spec and spec.loader
        self.code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.code)
        for name in ("forward_model", "batch_sequences_mc", "batch_sequences_schema", "batch_sequences_lm"):
            self._keep(name)

    def _keep(self, name: str) -> None:
        function = getattr(self.code, name)

        def kept(*given: Any) -> Any:
            self.seen[name.split("_")[0]] = found = function(*given)
            return found

        setattr(self.code, name, kept)

    def __call__(self, ids: Any) -> Any:
        """The model as nanochat's code calls it."""
        self.logits = self.model(ids).logits
        self.ids = ids
        return self.logits

    def score(
        self, ours: Scorer, part: core.Part, items: list[Any], at: int
    ) -> tuple[list[float], float, bool]:
        """Mean log-likelihood of each choice of an item, by how much it leads, and whether it is right."""

        class Tokenizer:
            def get_bos_token_id(self) -> int:
                return (ours.start or [ours.tokenizer.bos])[0]

            def __call__(self, texts: list[str], prepend: int) -> list[list[int]]:
                return [[prepend, *ids] for ids in ours.tokenizer.encode_batch(texts)]

        about = {"task_type": part.kind, "num_fewshot": part.shots, "continuation_delimiter": part.delimiter}
        right = self.code.evaluate_example(at, self, Tokenizer(), items, "cpu", about)
        (losses, _), (tokens, starts, ends) = self.seen["forward"], self.seen["batch"]
        cut = [max(0, len(row) - LENGTH) for row in tokens]
        spans = [slice(a - c - 1, b - c - 1) for a, b, c in zip(starts, ends, cut, strict=True)]
        means = [-float(losses[row, span].mean()) for row, span in enumerate(spans)]
        if part.kind != core.LANGUAGE:
            best = sorted(means)[-2:]
            return means, best[-1] - best[0], right
        targets_C = self.ids[0, spans[0].start + 1 : spans[0].stop + 1, None]
        logits_CV = self.logits[0, spans[0]]
        rest_CV = logits_CV.scatter(1, targets_C, -self.torch.inf)
        leads_C = logits_CV.gather(1, targets_C)[:, 0] - rest_CV.amax(1)
        return means, abs(float(leads_C.min())), right

    def beside(self, ours: Scorer, part: core.Part, items: list[Any], count: int) -> dict[str, Any]:
        """How far our means are from theirs, and the verdicts that are the same, of those that are clear."""
        row = {"task": part.label, "kind": part.kind, "items": count}
        row |= {"most_apart": 0.0, "clear": 0, "same": 0}
        found = core.score(ours, part, items)
        for at, right in enumerate(core.grade(part, items, found)[:count]):
            with self.torch.inference_mode():
                means, lead, is_right = self.score(ours, part, items, at)
            apart = [abs(ours - theirs) for (ours, _), theirs in zip(found[at], means, strict=True)]
            row["most_apart"] = max(row["most_apart"], *apart)
            row["clear"] += lead > CLEAR
            row["same"] += lead > CLEAR and bool(right) == is_right
        return row


def shortened(model: str, layers: int, folder: str) -> str:
    """The model's first layers, as a folder with its tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model, num_hidden_layers=layers)
    AutoModelForCausalLM.from_pretrained(model, config=config, dtype=torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(folder) / name).write_bytes((Path(model) / name).read_bytes())
    return folder


def command() -> str:
    return "python benchmarks/core.py " + " ".join(sys.argv[1:])


if __name__ == "__main__":
    main()
