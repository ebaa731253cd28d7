"""Bradley-Terry strengths against what is known of them."""

import numpy as np

from jaxtrain.rate.leaderboard import leaderboard, strengths
from jaxtrain.rate.store import Comparison


def judged(checkpoints: list[str], ranks: list[int]) -> Comparison:
    return Comparison(
        task=1,
        prompt=[],
        completions=[""] * len(ranks),
        completion_ids=[],
        ranks=ranks,
        rater="ann",
        simulated=False,
        checkpoints=checkpoints,
        gold=None,
        all_bad=False,
        milliseconds=0,
        completion_rows=[],
    )


def test_strengths_are_where_the_likelihood_is_flat():
    rng = np.random.default_rng(0)
    wins_CC = rng.integers(0, 30, size=(5, 5)).astype(float)
    np.fill_diagonal(wins_CC, 0)
    found = strengths(wins_CC * 1e6)  # the one draw with strength 0 then weighs nothing
    expected_CC = (wins_CC + wins_CC.T) / (1 + np.exp(found[None] - found[:, None]))
    np.testing.assert_allclose(expected_CC.sum(axis=1), wins_CC.sum(axis=1), rtol=1e-5)


def test_two_checkpoints_win_as_often_as_they_won():
    wins_CC = np.array([[0, 300_000], [100_000, 0]], float)
    strong, weak = strengths(wins_CC)
    np.testing.assert_allclose(1 / (1 + np.exp(weak - strong)), 0.75, rtol=1e-4)


def test_the_board_is_ordered_and_its_intervals_hold_the_truth():
    rng, held = np.random.default_rng(0), 0
    truth = np.log([1.0, 2.0, 4.0])
    for _ in range(20):
        rows = []
        for _ in range(150):
            order = np.argsort(-(truth + rng.gumbel(size=3)))  # Gumbel noise: Plackett-Luce
            rows.append(judged(["a", "b", "c"], (np.argsort(order) + 1).tolist()))
        board = leaderboard(rows)
        assert [standing.checkpoint for standing in board] == ["c", "b", "a"]
        assert all(standing.answers == 150 for standing in board)
        centred = 1 / (1 + np.exp(-(truth - truth.mean())))
        at = {standing.checkpoint: standing for standing in board}
        held += sum(
            at[name].low <= share <= at[name].high for name, share in zip("abc", centred, strict=True)
        )
    assert 0.85 <= held / 60 <= 1


def test_one_checkpoint_has_no_board_and_one_that_never_lost_a_finite_place():
    assert leaderboard([]) == []
    assert leaderboard([judged(["a", "a"], [1, 2])]) == []
    board = leaderboard([judged(["a", "b"], [1, 2])] * 10)
    assert board[0].checkpoint == "a" and 0.8 < board[0].share < 1
    tied = leaderboard([judged(["a", "b"], [1, 1])] * 10)
    np.testing.assert_allclose([standing.share for standing in tied], 0.5)
