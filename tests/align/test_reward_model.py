"""The reward model: what it reads, on which mesh, that it learns, and what it is compared with."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtrain.align import judged
from jaxtrain.align import reward_model as rewards
from jaxtrain.align.comparisons import Comparisons, answer_rows, read_comparisons
from jaxtrain.align.heads import RewardModel, head_learner
from jaxtrain.align.judged import pair_grades
from jaxtrain.align.reward_model import RewardConfig, score
from jaxtrain.align.run import run
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.errors import UserError
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.train import optimizer as optimizers
from jaxtrain.train.config import TrainConfig
from jaxtrain.train.learner import Learner
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

    def of_read() -> np.ndarray:
        """From what a frozen trunk said of the rows."""
        given = Comparisons(rows, np.array([[1, 2]] * 4), [])
        return score(drawn(), rewards.read_once(given, drawn()).rows, batch_size=8)

    first, *others = on_meshes(lambda: score(drawn(), rows, batch_size=8))
    assert first.std() > 0.1
    for other in (*others, *on_meshes(of_read)):
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
    config = RewardConfig(model="", ratings="", human="", out="")
    step = make_step(partial(rewards.reward_loss, config, 4), optimizer)
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
        read_comparisons(mixed, tokenizer, 16)
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(mixed).slice(0, 0), empty)
    with pytest.raises(UserError, match=r"empty.parquet holds no comparisons; .*heldout_share"):
        read_comparisons(empty, tokenizer, 16)


def test_an_answer_is_read_as_it_was_sampled_and_scored_at_its_end_token(in_tiny):
    """Not encoded again: the ids that the policy drew, and `<|end|>` behind those that were cut short."""
    tokenizer = Tokenizer.load(Path(in_tiny("3_tokenize")) / "tokenizer")
    path = Path(in_tiny("6_rate")) / "train.parquet"
    rows = pq.read_table(path).to_pylist()
    comparisons = read_comparisons(path, tokenizer, 62)
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
    likes_short, likes_long = (read_comparisons(path, tokenizer, 60) for path in (short, long))
    baseline = lambda kept, heldout: judged.baselines(kept, heldout, None)["length_accuracy"]  # noqa: E731
    assert baseline(likes_short, likes_short) == 1
    assert baseline(likes_long, likes_long) == 1
    assert baseline(likes_short, likes_long) == 0
    assert baseline(likes_long, likes_short) == 0


def test_the_artifact_loads_to_the_model_whose_accuracy_it_states(in_tiny, eight):
    folder = Path(in_tiny("7_reward"))
    model = rewards.load(folder)
    tokenizer = Tokenizer.load(folder / "tokenizer")
    heldout = read_comparisons(Path(in_tiny("6_rate")) / "heldout.parquet", tokenizer, 61)
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
    with pytest.raises(UserError, match="batch_prompts times 4 answers is 12; 8 devices need"):
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


def test_a_gain_over_length_has_an_interval_of_comparisons_not_of_pairs():
    """Against a bootstrap by hand of two scorers: one right on all, one on half of the prompts."""
    ranks = np.tile([1, 2, 3], (40, 1))
    right = -ranks.astype(float)
    half = np.where(np.arange(40)[:, None] % 2 == 0, right, -right)
    found = judged.gain_over(right.ravel(), half.ravel(), ranks)
    assert found["mean"] == pytest.approx(0.5)
    # the mean of 40 draws of 0 or 1 with standard deviation 1/2: 1.96 · 0.5 / √40 either way
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.5 / 40**0.5, rel=0.1)
    assert found["excludes_zero"]
    none = judged.gain_over(right.ravel(), right.ravel(), ranks)
    assert (none["mean"], none["low"], none["high"], none["excludes_zero"]) == (0, 0, 0, False)


def test_calibration_of_a_model_that_is_as_sure_as_it_should_be_and_of_one_that_is_too_sure():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1.5, (20_000, 2))
    wins = rng.random(20_000) < 1 / (1 + np.exp(scores[:, 1] - scores[:, 0]))
    ranks = np.where(wins[:, None], [1, 2], [2, 1])
    error, rows = judged.calibration(scores.ravel(), ranks)
    assert error < 0.01
    assert sum(row["pairs"] for row in rows) == 20_000
    confident = [row["confidence"] for row in rows]
    assert confident == sorted(confident) and confident[0] >= 0.5 and confident[-1] <= 1
    too_sure, _ = judged.calibration(5 * scores.ravel(), ranks)
    assert too_sure > 0.15
    tied, rows = judged.calibration(np.array([0.0, 0.0, 1.0, 0.0]), np.array([[1, 2], [1, 1]]))
    assert rows == [{"confidence": 0.5, "accuracy": 0.5, "pairs": 1}]
    assert tied == 0


def test_of_peoples_comparisons_the_ceiling_is_their_agreement_never_the_simulated_utility(in_tiny, tmp_path):
    tokenizer = Tokenizer.load(Path(in_tiny("3_tokenize")) / "tokenizer")
    answers = [["a good warm answer.", "bad bad bad"]] * 3
    people = read_comparisons(
        write_comparisons(tmp_path / "people.parquet", answers, [[2, 1]] * 3), tokenizer, 60
    )
    assert not people.simulated
    found = judged.baselines(people, people, 0.73)
    assert (found["ceiling"], found["ceiling_of"]) == (0.73, "agreement of two raters")
    assert judged.baselines(people, people, None)["ceiling"] is None
    simulated = dataclasses.replace(people, simulated=True)
    found = judged.baselines(simulated, simulated, 0.73)
    assert (found["ceiling"], found["ceiling_of"]) == (0.0, "true utility")


@pytest.mark.parametrize(
    "changed",
    [
        {"trunk": "frozen", "center": 0.01},
        pytest.param({"loss": "plackett_luce"}, marks=pytest.mark.slow),
        pytest.param({"margin": 1.0, "center": 0.01}, marks=pytest.mark.slow),
    ],
)
def test_every_way_of_training_lowers_its_loss(drawn, one, changed):
    rng = np.random.default_rng(1)
    ranks = np.stack([rng.permutation(4) + 1 for _ in range(8)])
    few = Comparisons(answer_rows(tokens_of(rng.integers(2, 16, 32).tolist()), 16, PAD), ranks, [])
    config = RewardConfig(
        **changed,
        **dict.fromkeys(("model", "ratings", "human", "out"), ""),
        train=TrainConfig(optimizer=OptimizerConfig(lr=1e-2, warmup_steps=5, weight_decay=0.1)),
    )
    learner = Learner(drawn, drawn)
    if config.trunk == "frozen":
        few, learner = rewards.read_once(few, drawn()), head_learner(drawn())
    optimizer = optimizers.make(config.train.optimizer, 20)
    state = new_state(learner.first(), optimizer)
    before = jax.device_get(learner.whole(state.model))
    step = make_step(learner.loss(partial(rewards.reward_loss, config, 4)), optimizer)
    losses = []
    for _ in range(20):
        batch = meshes.put_batch(few.batch(np.arange(8)), one)
        state, metrics = step(state, batch, learner.frozen)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.02
    after = jax.device_get(learner.whole(state.model))
    changes = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
    assert jax.tree.leaves(changes.score_D) == [True]
    assert any(jax.tree.leaves(changes.transformer)) == (config.trunk == "trained")
