"""Preference training: what a batch holds, that every loss learns the raters' order, and what it refuses."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import get_args

import jax
import numpy as np
import pytest
from run_lines import lines

from jaxtrain import config as configs
from jaxtrain.align import preference
from jaxtrain.align.comparisons import Part
from jaxtrain.align.preference import Kind, PreferenceConfig, pack, read_pairs
from jaxtrain.align.run import run
from jaxtrain.document import read_rows
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tokenize.tokenizer import PATTERN, BytePairTokenizer, Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step
from jaxtrain.weights import folder as store


@pytest.fixture
def config(tiny, tmp_path, monkeypatch) -> PreferenceConfig:
    monkeypatch.chdir(tiny)
    return PreferenceConfig(
        model="runs/tiny/5_finetune",
        ratings="runs/tiny/6_rate",
        out=str(tmp_path / "out"),
        train=TrainConfig(
            optimizer=OptimizerConfig(lr=3e-3, warmup_steps=1, schedule="constant", weight_decay=0.0),
            mesh=MeshConfig(fsdp=8),
            evaluate_every=100,
        ),
        epochs=0.5,
        batch_pairs=16,
        length=64,
    )


def test_only_the_answer_is_a_target_and_a_long_prompt_loses_its_beginning():
    rows = pack([([1, 2, 3], [4, 5]), ([1, 2, 3, 4, 5, 6], [7, 8])], length=6, pad=0)
    assert rows["tokens"].tolist() == [[1, 2, 3, 4, 5, 0], [3, 4, 5, 6, 7, 8]]
    taught = [t[w > 0].tolist() for t, w in zip(rows["targets"], rows["loss_weights"], strict=True)]
    assert taught == [[4, 5], [7, 8]]
    assert rows["segment_ids"].sum(axis=1).tolist() == [5, 6]


def test_pairs_are_every_two_answers_that_are_not_tied_the_better_first(config):
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    path = Path(config.ratings) / "train.parquet"
    pairs = read_pairs(path, tokenizer, config.length)
    wanted, end = [], tokenizer.special["<|end|>"]
    for row in read_rows(path):
        order = sorted(range(len(row["ranks"])), key=lambda k: row["ranks"][k])
        for place, better in enumerate(order):
            for worse in order[place + 1 :]:
                if row["ranks"][better] < row["ranks"][worse]:
                    wanted.append(
                        tuple(tuple(i for i in row["completion_ids"][k] if i != end) for k in (better, worse))
                    )
    found = []
    for tokens, weights in zip(pairs.rows["targets"], pairs.rows["loss_weights"], strict=True):
        found.append(tuple(i for i in tokens[weights > 0].tolist() if i != end))
        assert tokens[weights > 0][-1] == end, "the end of an answer is taught"
    assert sorted(zip(found[0::2], found[1::2], strict=True)) == sorted(wanted)
    assert len(pairs) == len(wanted)


def test_kto_holds_answers_against_those_to_another_prompt():
    """Of rankings, whose pairs share a prompt; the last and the first are of the same one too."""
    tokenizer = BytePairTokenizer({bytes([n]): n for n in range(256)}, PATTERN)

    def ranking(prompt: str) -> dict:
        asked = [{"role": "user", "content": prompt}]
        answers = {"completions": [f"{prompt}{n}" for n in range(3)], "completion_ids": [[]] * 3}
        return {"prompt": asked, **answers, "ranks": [1, 2, 3]}

    pairs = read_pairs(Part("rankings", [ranking(name) for name in "abca"]), tokenizer, 64, mismatched=True)
    assert (len(pairs), pairs.rows_a_pair) == (4 * 3, 4)
    read = zip(*(pairs.rows[name] for name in ("tokens", "targets", "loss_weights")), strict=True)
    rows = [(tokenizer.decode(t.tolist()), tokenizer.decode(a[w > 0].tolist())) for t, a, w in read]
    for n, name in enumerate("abca"):
        for pair in range(3):
            four = rows[12 * n + 4 * pair :][:4]
            assert all(name in whole.removesuffix(said)[: -len(said)] for whole, said in four)
            assert [said[0] == name for _, said in four] == [True, True, False, False]
    with pytest.raises(UserError, match="rankings has one prompt"):
        read_pairs(Part("rankings", [ranking("a")] * 2), tokenizer, 64, mismatched=True)


# Alike but for a line of `losses`, which has its own tests.
ALIKE = ("sigmoid_norm", "ipo", "hinge", "robust", "orpo")


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=pytest.mark.slow) if k in ALIKE else k for k in get_args(Kind)]
)
def test_every_loss_learns_the_order_it_is_shown(config, kind):
    beta = {"simpo": 2.0, "orpo": 1.0}.get(kind, 0.1)
    folder = run(dataclasses.replace(config, kind=kind, beta=beta))
    losses = [line["loss"] for line in lines(folder, None)]
    assert all(np.isfinite(losses))
    if kind in ("sigmoid", "sigmoid_norm"):
        np.testing.assert_allclose(losses[0], np.log(2), rtol=1e-4)  # the policy is the reference
    tokenizer = Tokenizer.load(folder / "tokenizer")
    pairs = read_pairs(Path(config.ratings) / "train.parquet", tokenizer, config.length)
    with jax.set_mesh(meshes.make(config.train.mesh)):
        before, after = (
            preference.summed_logprobs(store.load(path), pairs.rows) for path in (config.model, folder)
        )
    gain = (after - before) / (pairs.rows["loss_weights"].sum(axis=1) if kind in ("simpo", "orpo") else 1)
    assert np.mean(gain[0::2] > gain[1::2]) > 0.6, "the better answers of the training pairs have gained"


def test_the_same_losses_on_another_mesh_and_in_parts(config, tmp_path):
    other = configs.changed(
        config,
        train__mesh=MeshConfig(fsdp=4, tensor=2),
        train__microbatches=4,
        out=str(tmp_path / "other"),
    )
    first, second = (lines(run(each), None) for each in (config, other))
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(one["loss"], two["loss"], rtol=2e-4)


def test_orpo_in_parts_is_the_same_step(small, placed, one):
    """Chosen answers of 3 and of 21 tokens: a mean of each part's tokens would differ."""
    rng = np.random.default_rng(0)
    sizes = [(2, 15)] * 4 + [(20, 3)] * 4
    pairs = [
        [(rng.integers(3, 60, 5).tolist(), rng.integers(3, 60, n).tolist()) for n in pair] for pair in sizes
    ]
    rows = pack([row for pair in pairs for row in pair], 32, 0)
    rows["nll_scale"] = np.full_like(rows["loss_weights"], 8 / rows["loss_weights"][0::2].sum())
    settings = PreferenceConfig(model="", ratings="", out="", kind="orpo")
    optimizer, found = optimizers.make(OptimizerConfig(), 10), []
    for parts in (1, 2):
        state = new_state(placed(partial(Transformer, small)), optimizer)
        step = make_step(partial(preference.preference_loss, settings), optimizer, parts)
        found.append(step(state, meshes.put_batch(rows, one))[1])
    whole = {name: values for name, values in rows.items() if name != "nll_scale"}
    state = new_state(placed(partial(Transformer, small)), optimizer)
    step = make_step(partial(preference.preference_loss, settings), optimizer)
    found.append(step(state, meshes.put_batch(whole, one))[1])
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose([of[name] for of in found[1:]], float(found[0][name]), rtol=1e-5)


def test_a_pair_whose_answer_fills_a_row_is_left_out_and_counted(config):
    tokenizer = Tokenizer.load(Path(config.model) / "tokenizer")
    path = Path(config.ratings) / "train.parquet"
    whole, short = (read_pairs(path, tokenizer, length) for length in (64, 12))
    assert whole.too_long == 0 < short.too_long
    assert len(short) + short.too_long == len(whole)
    prompts = short.rows["segment_ids"].sum(axis=1) - short.rows["loss_weights"].sum(axis=1)
    assert (prompts > 0).all(), "some of the prompt is there"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"batch_pairs": 12}, "batch_pairs times 2 rows a pair is 24; .* need a multiple of 16"),
        ({"kind": "hinge", "label_smoothing": 0.1}, "label_smoothing has no meaning for hinge"),
    ],
)
def test_what_it_refuses(config, changed, words):
    with pytest.raises(UserError, match=words):
        run(dataclasses.replace(config, **changed))
