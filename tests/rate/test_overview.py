"""Which checkpoint raters like best, and how many more comparisons tell a reward model from mere length."""

import numpy as np
import pytest

from jaxtrain.rate.exchange import HELDOUT_SHARE
from jaxtrain.rate.overview import beside_length, standings
from jaxtrain.rate.store import Comparison


def judged(prompt: str, lengths: tuple[int, ...], ranks: list[int], checkpoints: str = "") -> Comparison:
    answers = ["x" * length for length in lengths]
    none = {"completion_ids": [], "checkpoints": list(checkpoints), "completion_rows": [], "gold": None}
    said = {"rater": "ann", "simulated": False, "all_bad": False, "milliseconds": 0}
    asked = [{"role": "user", "content": prompt}]
    return Comparison(task=1, prompt=asked, completions=answers, ranks=ranks, **none, **said)


@pytest.fixture(scope="module")
def seen() -> dict:
    """300 judgements of two answers, 180 for the longer; 50 ties and 50 of one length, which say nothing."""
    rows = [judged(f"{n}?", (3, 9), [2, 1] if n < 180 else [1, 2]) for n in range(300)]
    rows += [judged(f"t{n}?", (3, 9), [1, 1]) for n in range(50)]
    return beside_length(rows + [judged(f"e{n}?", (3, 3), [1, 2]) for n in range(50)])


def test_pairs_that_length_decides(seen):
    assert (seen["share"], seen["pairs"]) == (0.6, 300) and seen["low"] < 0.6 < seen["high"]
    assert seen["heldout"] == pytest.approx(300 * HELDOUT_SHARE, abs=25)


def test_with_so_many_held_out_pairs_a_gain_shows_four_times_in_five(seen):
    rng = np.random.default_rng(0)
    for row in seen["gains"]:
        n = row["enough"]
        apart = (rng.random((2000, n)) < 0.6 + row["gain"]) - 1.0 * (rng.random((2000, n)) < 0.6)
        low = apart.mean(axis=1) - 1.96 * apart.std(axis=1) / n**0.5
        assert (low > 0).mean() == pytest.approx(0.8, abs=0.04)
        # 400 judgements hold 300 pairs that tell, a fifth of them held out
        assert row["more"] == pytest.approx((n - seen["heldout"]) / HELDOUT_SHARE * 400 / 300, abs=1)


def test_without_judgements_it_says_what_is_needed_of_the_first():
    nothing = beside_length([])
    assert (nothing["low"], nothing["high"], nothing["pairs"]) == (0.0, 1.0, 0)
    assert [row["more"] for row in nothing["gains"]] == sorted(row["more"] for row in nothing["gains"])


def test_the_board_is_ordered_and_its_intervals_hold_the_truth():
    """Of raters with Gumbel noise (Plackett-Luce): i is taken before j with σ of the difference."""
    rng, held = np.random.default_rng(0), 0
    truth = np.log([1.0, 2.0, 4.0])
    beats = 1 / (1 + np.exp(truth[None] - truth[:, None]))
    wanted = dict(zip("abc", (beats.sum(axis=1) - 0.5) / 2, strict=True))
    for _ in range(20):
        rows = []
        for _ in range(150):
            order = np.argsort(-(truth + rng.gumbel(size=3)))
            rows.append(judged("?", (1, 1, 1), (np.argsort(order) + 1).tolist(), "abc"))
        board = standings(rows)
        assert [row["checkpoint"] for row in board] == ["c", "b", "a"]
        assert all(row["answers"] == 150 for row in board)
        held += sum(row["low"] <= wanted[row["checkpoint"]] <= row["high"] for row in board)
    assert 0.9 <= held / 60 <= 1


def test_one_checkpoint_has_no_board_and_a_tie_is_half_a_win():
    assert standings([]) == standings([judged("?", (1, 1), [1, 2], "aa")]) == []
    won, lost = standings([judged("?", (1, 1), [1, 2], "ab")] * 10)
    assert (won["checkpoint"], won["share"]) == ("a", 1.0) and 0.7 < won["low"] < 0.8 < won["high"] <= 1
    assert [row["share"] for row in standings([judged("?", (1, 1), [1, 1], "ab")] * 10)] == [0.5, 0.5]
