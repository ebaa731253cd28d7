"""CORE: prompts as nanochat renders them, scores against the logits of one text a row, parts called parts."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

from jaxtrain.evaluate import core
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.evaluate.core import CoreConfig
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import folder as store

ITEMS = {
    "copa": [
        {"query": f"Number {at} is", "choices": ["even", "odd", "no number"], "gold": at % 2}
        for at in range(7)
    ],
    "winograd": [
        {
            "context_options": [f"The {one} is on the table because the {one}", f"The {one} and the table"],
            "continuation": "stands there.",
            "gold": 0,
        }
        for one in ("cup", "lamp", "cat", "book", "pen")
    ],
    "lambada_openai": [
        {"context": f"One, two, three, then comes {at} ", "continuation": "and"} for at in range(6)
    ],
}
KINDS = {"copa": "multiple_choice", "winograd": "schema", "lambada_openai": "language_modeling"}


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Three of the tasks, and a fourth that is listed without its file."""
    folder = tmp_path / "bundle"
    (folder / "eval_data").mkdir(parents=True)
    tasks = [
        {"label": label, "icl_task_type": kind, "dataset_uri": f"{label}.jsonl", "num_fewshot": [2]}
        for label, kind in {**KINDS, "squad": "language_modeling"}.items()
    ]
    tasks[0]["continuation_delimiter"] = " surely "
    (folder / "core.yaml").write_text(yaml.safe_dump({"icl_tasks": tasks}))
    with (folder / "eval_meta_data.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Eval Task", "Random baseline"])
        table.writerows([["copa", 33.0], ["winograd", 50.0], ["lambada_openai", 0.0], ["squad", 0.0]])
    for label, items in ITEMS.items():
        lines = "".join(json.dumps(item) + "\n" for item in items)
        (folder / "eval_data" / f"{label}.jsonl").write_text(lines)
    return folder


@pytest.fixture
def scorer(tiny):
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        model = store.load(tiny / "runs" / "tiny" / "5_finetune")
        tokenizer = Tokenizer.load(tiny / "runs" / "tiny" / "5_finetune" / "tokenizer")
        yield Scorer(model, tokenizer, length=128, batch_size=4)


def test_prompts_are_examples_then_the_item(bundle):
    """As nanochat's core_eval renders this bundle."""
    parts, absent = core.read(bundle)
    assert len(absent) == 19 and "squad" in absent
    copa, winograd, lambada = (part.texts(part.items(0), 0) for part in parts)
    before = "Number 2 is surely even\n\nNumber 5 is surely odd\n\nNumber 0 is surely "
    assert copa == [before + choice for choice in ("even", "odd", "no number")]
    before = "".join(
        f"The {one} is on the table because the {one} stands there.\n\n" for one in ("pen", "cup")
    )
    assert winograd == [
        f"{before}The lamp is on the table because the lamp stands there.",
        f"{before}The lamp and the table stands there.",
    ]
    text = "\n\n".join(f"One, two, three, then comes {ending}" for ending in ("5 and", "0 and", "1"))
    assert lambada == [text, f"{text} and"]


def test_scores_are_those_of_one_text_a_row(bundle, scorer):
    """Mean log-probability of what the choices do not share; float64 over the logits of the whole text."""
    forward = jax.jit(lambda tokens: scorer.model(tokens))
    for part in core.read(bundle)[0]:
        items = part.items(0)
        for at, choices in enumerate(core.score(scorer, part, items)):
            texts = [[*scorer.start, *scorer.tokenizer.encode(text)] for text in part.texts(items, at)]
            for (context, continuation), (mean, is_greedy) in zip(
                part.pairs(texts, 128), choices, strict=True
            ):
                assert len(context) + len(continuation) <= 128
                ids = np.array([[*context, *continuation, *[0] * (128 - len(context) - len(continuation))]])
                logits = np.asarray(forward(ids))[0].astype(np.float64)
                logits = logits[len(context) - 1 : len(context) + len(continuation) - 1]
                logp = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
                logp -= logits.max(-1, keepdims=True)
                wanted = logp[np.arange(len(continuation)), continuation].mean()
                assert mean == pytest.approx(wanted, abs=1e-4)
                assert is_greedy == (logits.argmax(-1) == continuation).all()


def test_choices_begin_where_they_differ_and_a_schema_ends_where_it_is_the_same():
    part = core.Part("copa", core.CHOICES, Path(), 0, " ", 0.5)
    assert part.pairs([[1, 2, 3, 4], [1, 2, 5]], 9) == [([1, 2], [3, 4]), ([1, 2], [5])]
    assert part.pairs([[1, 2, 3, 4], [1, 2, 5]], 3) == [([2], [3, 4]), ([1, 2], [5])]
    part = core.Part("winograd", core.SCHEMA, Path(), 0, " ", 0.5)
    assert part.pairs([[1, 2, 8, 9], [1, 5, 6, 8, 9]], 9) == [([1, 2], [8, 9]), ([1, 5, 6], [8, 9])]
    part = core.Part("squad", core.LANGUAGE, Path(), 0, " ", 0.0)
    assert part.pairs([[1, 2], [1, 2, 3, 4]], 9) == [([1, 2], [3, 4])]


def test_a_part_is_never_called_core(bundle, scorer):
    (row,) = core.measure(scorer, CoreConfig(folder=str(bundle), items=5))["core"]
    assert row["name"] == "CORE of 3 of 22 tasks, at most 5 items a task"
    assert [task["items"] for task in row["tasks"]] == [5, 5, 5]
    assert row["value"] == pytest.approx(np.mean([task["centred"] for task in row["tasks"]]))
    copa = row["tasks"][0]
    assert copa["centred"] == pytest.approx((copa["value"] - 0.33) / 0.67)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("core.yaml", "icl_tasks: [{label: copa}]", "no evaluation bundle"),
        ("core.yaml", "a: [", "no evaluation bundle"),
        ("eval_meta_data.csv", "Eval Task,Random baseline\ncopa,many\n", "no evaluation bundle"),
        (
            "eval_data/copa.jsonl",
            '{"query": "a", "choices": ["b"], "gold": 7}\n',
            "line 1 is no multiple_choice",
        ),
        ("eval_data/copa.jsonl", '{"query": "a", "choices": ["b"], "gold": 0}\n', "too few for 2 examples"),
        ("eval_data/copa.jsonl", "", "is empty"),
    ],
)
def test_a_bundle_that_is_none_is_one_line(bundle, scorer, name, text, said):
    (bundle / name).write_text(text)
    with pytest.raises(UserError, match=said):
        core.measure(scorer, CoreConfig(folder=str(bundle)))
