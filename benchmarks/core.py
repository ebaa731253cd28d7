"""CORE's items beside nanochat's own code: log-likelihoods and choices of one model.

    git clone https://github.com/karpathy/nanochat
    python benchmarks/core.py nanochat BUNDLE smollm2_135m          (in .venv-peers)

writes benchmarks/results/core.json. The model is a Hugging Face folder; `--layers 2` takes its first
layers, which is quick and as good a test of the code. BUNDLE is the evaluation bundle, or a part.
"""

import argparse
import importlib.util
import json
import random
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from record import record
from transformers import AutoConfig, AutoModelForCausalLM

from jaxtrain import weights
from jaxtrain.evaluate import core
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("nanochat", help="a checkout of github.com/karpathy/nanochat")
    parser.add_argument("bundle")
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=120, help="of each task")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--work", default="core_model", help="where the model of fewer layers is written")
    options = parser.parse_args()
    theirs = _theirs(options.nanochat)
    folder = _shortened(options.model, options.layers, options.work) if options.layers else options.model
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    source = weights.open(folder)
    rows = []
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        scorer = Scorer(source.load_to_use("float32"), source.tokenizer, length=2048, batch_size=4)
        parts, absent = core.read(options.bundle)
        for part in parts:
            rows.append(_compare(scorer, part, part.items(options.items), theirs, model))
            print(json.dumps(rows[-1]))
    record(
        "core",
        ["jax", "torch", "transformers"],
        {
            "command": "core.py " + " ".join(sys.argv[1:]),
            "items": sum(row["items"] for row in rows),
            "most_apart_nats_a_token": max(row["most_apart"] for row in rows),
            "tasks": rows,
            "absent": absent,
        },
    )


def _theirs(checkout: str) -> Any:
    file = Path(checkout) / "nanochat" / "core_eval.py"
    spec = importlib.util.spec_from_file_location("core_eval", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _shortened(model: str, layers: int, folder: str) -> str:
    """The model's first layers, as a folder with its tokenizer."""
    config = AutoConfig.from_pretrained(model, num_hidden_layers=layers)
    AutoModelForCausalLM.from_pretrained(model, config=config, dtype=torch.float32).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (Path(folder) / name).write_bytes((Path(model) / name).read_bytes())
    return folder


def _compare(scorer: Scorer, part: core.Part, items: list[Any], theirs: Any, model: Any) -> dict[str, Any]:
    """Our means beside theirs; the choices that are the same, of those with a margin above 1e-3."""
    ours = core.score(scorer, part, items)
    apart, same, clear = 0.0, 0, 0
    for at, item in enumerate(items):
        found = np.array([mean for mean, _ in ours[at]])
        wanted, right = _score(theirs, model, scorer, part, items, at)
        if part.kind == core.LANGUAGE:
            same, clear = same + (ours[at][0][1] == right), clear + 1
            continue
        apart = max(apart, float(np.abs(found - wanted).max()))
        best = np.sort(wanted)[-2:]
        if best[1] - best[0] > 1e-3:
            same, clear = same + ((int(np.argmax(found)) == item["gold"]) == right), clear + 1
    return {
        "task": part.label,
        "items": len(items),
        "most_apart": apart,
        "same": same,
        "clear": clear,
        "accuracy": float(core.grade(scorer, part, items).mean()),
    }


def _score(
    theirs: Any, model: Any, scorer: Scorer, part: core.Part, items: list[Any], at: int
) -> tuple[np.ndarray, bool]:
    """nanochat's mean log-likelihood of each choice of an item, and whether it calls the item right."""
    start = (scorer.start or [scorer.tokenizer.bos])[0]

    class Tokenizer:
        def get_bos_token_id(self) -> int:
            return start

        def __call__(self, texts: list[str], prepend: int) -> list[list[int]]:
            return [[prepend, *ids] for ids in scorer.tokenizer.encode_batch(texts)]

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    forward = theirs.forward_model

    def kept(_: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(forward(lambda x: model(x).logits, ids))
        return seen[-1]

    theirs.forward_model = kept
    try:
        meta = {
            "task_type": part.kind,
            "num_fewshot": part.shots,
            "continuation_delimiter": part.delimiter,
        }
        tokenizer = Tokenizer()
        right = theirs.evaluate_example(
            at, types.SimpleNamespace(max_seq_len=None), tokenizer, items, "cpu", meta
        )
        losses = seen[0][0]
        if part.kind == core.LANGUAGE:
            return np.zeros(1), right
        rng = random.Random(1234 + at)
        others = [other for other in range(len(items)) if other != at]
        examples = [items[other] for other in rng.sample(others, part.shots)] if part.shots else []
        is_choice = part.kind == core.CHOICES
        render = theirs.render_prompts_mc if is_choice else theirs.render_prompts_schema
        cut = theirs.batch_sequences_mc if is_choice else theirs.batch_sequences_schema
        _, starts, ends = cut(tokenizer, render(items[at], part.delimiter, examples))
        means = [
            -float(losses[row, a - 1 : b - 1].mean())
            for row, (a, b) in enumerate(zip(starts, ends, strict=True))
        ]
        return np.array(means), right
    finally:
        theirs.forward_model = forward


if __name__ == "__main__":
    main()
