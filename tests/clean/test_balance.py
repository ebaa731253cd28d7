import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean.balance import (
    Balance,
    capped,
    group_key,
    heldout_shares,
    hold_out,
    mixture,
    plan,
)
from jaxtrain.runtime.errors import UserError


def test_weights_are_normalised_over_the_sources_that_have_documents():
    assert mixture({"web": 2, "wiki": 1, "code": 1}, {"web": 10, "wiki": 10, "code": 0}) == pytest.approx(
        {"web": 2 / 3, "wiki": 1 / 3}
    )


def test_code_is_at_most_a_fifth_of_what_is_held_out():
    shares = heldout_shares({"code": 0.5, "web": 0.3, "wiki": 0.2}, 1000, lambda source: source == "code")
    assert shares == {"code": 200, "web": 480, "wiki": 320}
    assert heldout_shares({"code": 0.1, "web": 0.9}, 1000, lambda s: s == "code") == {"code": 100, "web": 900}


def keys(names: list[str]) -> np.ndarray:
    return np.array([group_key(name) for name in names], np.uint64)


def held(names: list[str], sizes: list[int], share: int) -> tuple[list[int], bool]:
    rows, is_part = hold_out("books", keys(names), np.array(sizes), share)
    return rows.tolist(), is_part


def test_of_large_works_a_part_is_held_out_and_said(capsys):
    assert held(["novel"] * 50, [100] * 50, 300) == ([49, 48, 47], True)
    assert "a part of one that is trained on" in capsys.readouterr().err
    rows, is_part = held([f"novel{i // 18}" for i in range(54)], [20_000] * 54, 20_000)
    assert len(rows) == 1 and is_part and "novel" not in capsys.readouterr().err


def test_a_large_document_is_passed_over_and_what_is_held_out_is_said(capsys):
    rows, is_part = held(["a", "b", "c"], [360_000, 24_000, 24_000], 400_000)
    assert (sorted(rows), is_part) == ([1, 2], False)
    assert "holds out 48,000 of its 408,000 bytes instead of 400,000" in capsys.readouterr().err
    assert held(["a", "b"], [900, 100], 50) == ([1], False)
    assert held(["a"], [1000], 100) == ([], False), "the one document is trained on"


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 300)), min_size=1, max_size=60),
    st.integers(1, 2000),
)
def test_what_is_held_out_is_near_the_share_and_never_most_of_a_source(documents, share):
    """Within half a document of the bytes asked for, or of a tenth of the source; else one small document."""
    names, sizes = [f"url{url}" for url, _ in documents], [size for _, size in documents]
    rows, is_part = held(names, sizes, share)
    taken, goal = sum(sizes[row] for row in rows), min(share, sum(sizes) // 10)
    assert taken <= goal + max(sizes) / 2 or len(rows) == 1
    assert 2 * taken <= sum(sizes)
    assert rows or len(sizes) == 1 or max(sizes) * 2 >= sum(sizes)
    if not is_part:
        works = {names[row] for row in rows}
        of_works = sum(size for name, size in documents if f"url{name}" in works)
        assert len(rows) == 1 or of_works - taken <= sum(sizes) / 10, "what is dropped with it is little"


def test_a_growing_corpus_keeps_what_was_held_out():
    groups, sizes = keys([f"url{i}" for i in range(200)]), np.full(200, 100)
    before, _ = hold_out("web", groups[:150], sizes[:150], 1000)
    after, _ = hold_out("web", groups, sizes, 1000)
    assert len(set(before.tolist()) & set(after.tolist())) >= 5


def test_temperature_goes_from_proportional_to_uniform():
    weights, kept = {"en": 1, "fi": 1}, {"en": 900, "fi": 100}
    assert plan(weights, kept, Balance()) == pytest.approx({"en": 0.5, "fi": 0.5})
    assert plan(weights, kept, Balance(temperature=1)) == pytest.approx({"en": 0.9, "fi": 0.1})
    assert plan(weights, kept, Balance(temperature=2)) == pytest.approx({"en": 0.75, "fi": 0.25})
    assert plan(weights, kept, Balance(temperature=1e9)) == pytest.approx({"en": 0.5, "fi": 0.5})


def test_caps_and_upsampling_limits_hand_the_surplus_to_the_others():
    weights, kept = {"a": 8, "b": 1, "c": 1}, {"a": 100, "b": 100, "c": 800}
    assert plan(weights, kept, Balance(most_share=0.5)) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})
    limited = plan(weights, kept, Balance(most_repeats=2))
    assert limited == pytest.approx({"a": 0.2, "b": 0.2, "c": 0.6})  # b too is full once a gives
    with pytest.raises(UserError, match="raise one of them"):
        plan(weights, kept, Balance(most_share=0.3))


@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)), min_size=1, max_size=8))
def test_capped_shares_sum_to_one_and_keep_their_order_below_the_cap(pairs):
    total = sum(share for share, _ in pairs)
    shares = {str(i): share / total for i, (share, _) in enumerate(pairs)}
    caps = {str(i): cap for i, (_, cap) in enumerate(pairs)}
    if sum(caps.values()) < 1:
        with pytest.raises(UserError):
            capped(shares, caps)
        return
    found = capped(shares, caps)
    assert math.isclose(sum(found.values()), 1, rel_tol=1e-6)
    free = {name for name in found if found[name] < caps[name] - 1e-9}
    assert all(found[name] <= caps[name] + 1e-9 for name in found)
    ratios = [found[name] / shares[name] for name in free]
    assert not ratios or max(ratios) == pytest.approx(min(ratios), rel=1e-6)
    assert all(found[name] >= shares[name] * (1 - 1e-9) for name in free)
