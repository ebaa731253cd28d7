import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.clean.balance import Item, heldout_shares, hold_out, mixture


def test_weights_are_normalised_over_the_sources_that_have_documents():
    assert mixture({"web": 2, "wiki": 1, "code": 1}, {"web": 10, "wiki": 10, "code": 0}) == pytest.approx(
        {"web": 2 / 3, "wiki": 1 / 3}
    )


def test_code_is_at_most_a_fifth_of_what_is_held_out():
    shares = heldout_shares({"code": 0.5, "web": 0.3, "wiki": 0.2}, 1000, lambda source: source == "code")
    assert shares == {"code": 200, "web": 480, "wiki": 320}
    assert heldout_shares({"code": 0.1, "web": 0.9}, 1000, lambda s: s == "code") == {"code": 100, "web": 900}


def test_a_source_of_one_url_is_all_for_training():
    assert hold_out("books", [Item(str(i), "novel", 100) for i in range(50)], 300) == set()


@given(st.lists(st.integers(1, 300), min_size=2, max_size=60), st.integers(0, 2000))
def test_the_share_is_met_to_half_a_document_and_a_tenth_of_the_source_at_most(sizes, share):
    items = [Item(str(i), f"url{i // 3}", size) for i, size in enumerate(sizes)]
    taken = sum(item.bytes for item in items if item.id in hold_out("web", items, share))
    goal = min(share, sum(sizes) // 10)
    assert taken <= goal + max(sizes) and (taken >= goal - max(sizes) / 2 or len(sizes) <= 3)


def test_a_growing_corpus_keeps_what_was_held_out():
    items = [Item(str(i), f"url{i}", 100) for i in range(200)]
    before = hold_out("web", items[:150], 1000)
    assert len(before & hold_out("web", items, 1000)) >= 5
