"""The reward model: what it reads, on which mesh, that it learns, and what it is compared with."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.align import reward_model as rewards
from jaxtrain.align.reward_model import (
    Comparisons,
    RewardConfig,
    RewardModel,
    answer_rows,
    pair_grades,
    score,
)
from jaxtrain.align.run import run
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.optimizer import OptimizerConfig
from jaxtrain.train.state import new_state
from jaxtrain.train.step import make_step

PAD = 0
DATA = Path(__file__).parents[2] / "data" / "quickstart"


def tokens_of(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 64, length).tolist() for length in lengths]


@pytest.fixture
def drawn(small, placed):
    """A reward model of random weights on the mesh that is set."""
    return lambda: placed(partial(RewardModel, small))


def test_a_score_is_read_at_the_last_real_token(drawn, eight):
    model = drawn()
    tokens = tokens_of([5, 9, 16, 1, 7, 3, 12, 16])
    rows = answer_rows(tokens, 16, PAD)
    first = score(model, rows, batch_size=8)
    padding = rows["segment_ids"] == 0
    other = rows | {"tokens": np.where(padding, 63 - rows["tokens"], rows["tokens"])}
    np.testing.assert_array_equal(score(model, other, batch_size=8), first)
    longer = {name: np.pad(values, ((0, 0), (0, 16))) for name, values in rows.items()}
    np.testing.assert_allclose(score(model, longer, batch_size=8), first, atol=1e-5)
    for row, ids in enumerate(tokens):
        rows["tokens"][row, len(ids) - 1] += 1
        rows["tokens"][row, len(ids) - 1] %= 64
    assert (np.abs(score(model, rows, batch_size=8) - first) > 1e-4).all(), "the last token itself counts"


def test_tokens_behind_the_last_one_change_nothing(drawn, eight):
    """PPO's rows may hold anything behind the answer: attention looks back only."""
    model = drawn()
    whole = answer_rows(tokens_of([16] * 8), 16, PAD)
    last = np.zeros_like(whole["last"])
    last[:, 9] = 1
    first = score(model, whole | {"last": last}, batch_size=8)
    tokens = whole["tokens"].copy()
    tokens[:, 10:] = 7
    np.testing.assert_array_equal(score(model, whole | {"last": last, "tokens": tokens}, batch_size=8), first)


def test_scores_are_the_same_on_every_mesh(drawn, on_meshes):
    rows = answer_rows(tokens_of([5, 9, 16, 1, 7, 3, 12, 16]), 16, PAD)
    first, *others = on_meshes(lambda: score(drawn(), rows, batch_size=8))
    assert first.std() > 0.1
    for other in others:
        np.testing.assert_allclose(other, first, rtol=1e-4, atol=1e-5)


def test_any_number_of_rows_is_scored_in_any_batch(drawn, eight):
    model = drawn()
    rows = answer_rows(tokens_of(list(range(1, 14))), 16, PAD)
    assert score(model, rows, batch_size=8).shape == (13,)
    np.testing.assert_allclose(score(model, rows, batch_size=8), score(model, rows, batch_size=16), atol=1e-5)


def test_rows_keep_the_end_of_what_is_too_long():
    rows = answer_rows([[1, 2, 3, 4, 5], [6, 7]], 4, PAD)
    assert rows["tokens"].tolist() == [[2, 3, 4, 5], [6, 7, 0, 0]]
    assert rows["segment_ids"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert rows["positions"].tolist() == [[0, 1, 2, 3], [0, 1, 0, 0]]
    assert rows["last"].tolist() == [[0, 0, 0, 1], [0, 1, 0, 0]]


def test_a_batch_holds_the_answers_of_its_prompts_together():
    rows = answer_rows([[10 * b + k] for b in range(3) for k in range(2)], 1, PAD)
    comparisons = Comparisons(rows, np.array([[1, 2], [2, 1], [1, 1]]), [["", ""]] * 3)
    batch = comparisons.batch(np.array([2, 0]))
    assert batch["tokens"].ravel().tolist() == [20, 21, 0, 1]
    assert batch["ranks"].ravel().tolist() == [1, 1, 1, 2]


def test_it_learns_a_few_comparisons_by_heart_and_starts_at_chance(drawn, one):
    rng = np.random.default_rng(1)
    ranks = np.stack([rng.permutation(4) + 1 for _ in range(64)])
    rows = answer_rows(tokens_of(rng.integers(2, 16, 256).tolist()), 16, PAD)
    chance = pair_grades(score(drawn(), rows), ranks)
    assert abs(chance.mean() - 0.5) < 0.1, "384 pairs, four to a standard error of .025"
    few = Comparisons({name: values[:32] for name, values in rows.items()}, ranks[:8], [])
    optimizer = optimizers.make(OptimizerConfig(lr=1e-2, warmup_steps=5, weight_decay=0.0), 40)
    state = new_state(drawn(), optimizer)
    step = make_step(partial(rewards.reward_loss, answers=4), optimizer)
    losses = []
    for _ in range(40):
        state, metrics = step(state, meshes.put_batch(few.batch(np.arange(8)), one))
        losses.append(float(metrics["loss"]))
        assert float(metrics["targets"]) == 8, "a prompt is one unit of the mean"
    assert losses[0] == pytest.approx(np.log(2), abs=0.3)
    assert losses[-1] < 0.05
    assert pair_grades(score(state.model, few.rows), few.ranks_BK).mean() == 1


def test_a_pair_counts_half_where_scores_tie_and_not_at_all_where_ranks_do():
    ranks = np.array([[1, 2, 2]])
    assert pair_grades(np.array([3.0, 1.0, 2.0]), ranks).tolist() == [1, 1]
    assert pair_grades(np.array([1.0, 1.0, 2.0]), ranks).tolist() == [0.5, 0]


def write_comparisons(path: Path, answers: list[list[str]], ranks: list[list[int]]) -> Path:
    rows = [
        {
            "prompt": [{"role": "user", "content": f"question {n}"}],
            "completions": texts,
            "completion_ids": [[] for _ in texts],
            "ranks": order,
            "rater": "anna",
            "simulated": False,
        }
        for n, (texts, order) in enumerate(zip(answers, ranks, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_comparisons_that_cannot_be_trained_on_are_refused(in_tiny, tmp_path):
    tokenizer = Tokenizer.load(Path(in_tiny("3_tokenize")) / "tokenizer")
    mixed = write_comparisons(tmp_path / "mixed.parquet", [["a", "b"], ["a", "b", "c"]], [[1, 2], [1, 2, 3]])
    with pytest.raises(UserError, match=r"mixed.parquet mixes comparisons of \[2, 3\] answers"):
        rewards.read_comparisons(mixed, tokenizer, 16)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(mixed).slice(0, 0), empty)
    with pytest.raises(UserError, match=r"empty.parquet holds no comparisons; .*heldout_share"):
        rewards.read_comparisons(empty, tokenizer, 16)


def test_an_answer_is_read_as_it_was_sampled_and_scored_at_its_end_token(in_tiny):
    """Not encoded again: the ids that the policy drew, and `<|end|>` behind those that were cut short."""
    tokenizer = Tokenizer.load(Path(in_tiny("3_tokenize")) / "tokenizer")
    path = Path(in_tiny("6_rate")) / "train.parquet"
    rows = pq.read_table(path).to_pylist()
    comparisons = rewards.read_comparisons(path, tokenizer, 62)
    assert len(comparisons.rows["tokens"]) == 4 * len(rows)
    end, ended = tokenizer.special["<|end|>"], 0
    for number, row in enumerate(rows):
        for answer, ids in enumerate(row["completion_ids"]):
            whole = ids if ids[-1] == end else [*ids, end]
            tokens = comparisons.rows["tokens"][4 * number + answer]
            (last,) = np.flatnonzero(comparisons.rows["last"][4 * number + answer])
            assert tokens[last + 1 - len(whole) : last + 1].tolist() == whole
            assert tokens[last - len(whole)] == tokenizer.special["<|assistant|>"]
            ended += ids[-1] == end
    assert 0 < ended < 4 * len(rows)


def test_the_sign_of_length_is_chosen_on_the_training_comparisons(in_tiny, tmp_path):
    """Raters of these files like short answers in training and long ones when held out."""
    tokenizer = Tokenizer.load(Path(in_tiny("3_tokenize")) / "tokenizer")
    answers = [["a short one", "one that is a good deal longer"]] * 3
    short = write_comparisons(tmp_path / "short.parquet", answers, [[1, 2]] * 3)
    long = write_comparisons(tmp_path / "long.parquet", answers, [[2, 1]] * 3)
    likes_short, likes_long = (rewards.read_comparisons(path, tokenizer, 60) for path in (short, long))
    baseline = lambda kept, heldout: rewards._baselines(kept, heldout)["length_accuracy"]  # noqa: E731
    assert baseline(likes_short, likes_short) == 1
    assert baseline(likes_long, likes_long) == 1
    assert baseline(likes_short, likes_long) == 0
    assert baseline(likes_long, likes_short) == 0


def test_the_artifact_loads_to_the_model_whose_accuracy_it_states(in_tiny, eight):
    folder = Path(in_tiny("7_reward"))
    model = rewards.load(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    heldout = rewards.read_comparisons(Path(in_tiny("6_rate")) / "heldout.parquet", tokenizer, 61)
    grades = pair_grades(score(model, heldout.rows), heldout.ranks_BK)
    counts = json.loads((folder / "manifest.json").read_text())["counts"]
    assert counts["heldout_accuracy"] == pytest.approx(grades.mean())
    assert counts["pairs_heldout"] == len(grades)
    assert 0.5 < counts["ceiling"] <= 1


def test_a_batch_that_the_devices_cannot_share_is_refused(in_tiny, tmp_path):
    config = RewardConfig(
        model=in_tiny("5_finetune"),
        ratings=in_tiny("6_rate"),
        human=str(DATA),
        batch_prompts=3,
        out=str(tmp_path / "out"),
    )
    with pytest.raises(UserError, match="batch_prompts is 3, with 4 answers each, but 8 devices"):
        run(config)


def test_missing_inputs_are_named(in_tiny, tmp_path):
    config = RewardConfig(
        model=in_tiny("5_finetune"),
        ratings=str(tmp_path / "nowhere"),
        human=str(DATA),
        out=str(tmp_path / "out"),
    )
    with pytest.raises(UserError, match="nowhere"):
        run(config)
    with pytest.raises(UserError, match="comparisons.jsonl.gz"):
        run(dataclasses.replace(config, ratings=in_tiny("6_rate"), human=str(tmp_path)))
