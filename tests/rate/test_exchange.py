"""Comparisons out and in again: nothing changes on the way, and what is no comparison is named."""

import gzip
import json
from pathlib import Path

import pytest

from jaxtrain.rate import exchange
from jaxtrain.rate.store import Sample, Store
from jaxtrain.runtime.errors import UserError

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"


@pytest.fixture
def store(tmp_path):
    with Store(f"sqlite:///{tmp_path}/ratings.sqlite") as store:
        yield store


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ordered(store: Store) -> list[tuple]:
    """Each judgement without its display order: who, prompt, and the answers with their places."""
    return sorted(
        (
            row["rater"],
            row["prompt"][0]["content"],
            sorted(zip(row["ranks"], row["completions"], strict=True)),
        )
        for row in exchange.rankings(store)
    )


def test_rankings_go_out_and_in(store, tmp_path):
    for n, ranks in enumerate([(1, 2, 3), (2, 1, 1), (3, 1, 2)]):
        prompt = store.add_prompt([{"role": "user", "content": f"q{n}"}])
        task = store.add_task(prompt, [Sample(text=f"{n}{k}", token_ids=[k]) for k in range(3)], seed=n)
        ann = store.add_rater("ann", False)
        store.judge(task, ann, store.in_display_order(task, ranks, ann), now=0)
        store.judge(task, store.add_rater("robot", True), [1, 1, 1], now=0)
    before = ordered(store)
    assert before[0] == ("ann", "q0", [(1, "00"), (2, "01"), (3, "02")])
    path = lines(tmp_path / "rankings.jsonl", list(exchange.rankings(store)))
    with Store(f"sqlite:///{tmp_path}/other.sqlite") as other:
        assert exchange.read(other, path, rater="nobody") == {"added": 6}
        assert ordered(other) == before
        assert {(row["rater"], row["simulated"]) for row in exchange.rankings(other)} == {
            ("ann", False),
            ("robot", True),
        }


@pytest.mark.parametrize("gold", [False, True])
def test_a_file_that_is_read_again_adds_what_is_missing(store, tmp_path, gold):
    row = {"prompt": "Two and two?", "chosen": "Four.", "rejected": "Five."}
    path = lines(tmp_path / "known.jsonl", [row, row, row | {"chosen": "4"}])
    assert exchange.read(store, path, "file", gold=gold) == {"added": 3}
    before = ordered(store)
    assert exchange.read(store, path, "file", gold=gold) == {"stood here already": 3}
    if not gold:
        store.undo(store.add_rater("file", False), now=0)
        assert exchange.read(store, path, "file") == {"stood here already": 2, "added": 1}
        assert exchange.read(store, path, "another") == {"added": 3}
        before += [("another", *judged[1:]) for judged in before]
    assert ordered(store) == sorted(before) and store.counts()["tasks"] == 3 + 3 * (not gold)


def test_gold_rows_are_shown_to_every_rater_and_judged_by_none(store, tmp_path):
    row = {"prompt": "Two and two?", "chosen": "Four.", "rejected": "Five."}
    assert exchange.read(store, lines(tmp_path / "known.jsonl", [row]), "file", gold=True) == {"added": 1}
    assert store.counts()["judgements"] == 0
    for name in ("ann", "ben"):
        rater = store.add_rater(name, False)
        task = store.next_task(rater, now=0, gold_every=1)
        assert task is not None
        store.judge(task.task, rater, [1 + (text == "Five.") for text in task.completions], now=1)
    assert all(one.gold == one.ranks for one in store.comparisons())


def test_preferences_are_the_untied_pairs_in_trls_columns(store):
    prompt = store.add_prompt([{"role": "user", "content": "q"}])
    task = store.add_task(prompt, [Sample(text=text) for text in "abc"], seed=1)
    ann = store.add_rater("ann", False)
    store.judge(task, ann, store.in_display_order(task, [2, 1, 2], ann), now=0)
    gold = store.add_task(prompt, [Sample(text=text) for text in "de"], seed=2, gold=[1, 2])
    store.judge(gold, store.add_rater("ann", False), [1, 2], now=0)
    rows = list(exchange.preferences(store))
    assert [(row["chosen"], row["margin"]) for row in rows] == [
        ([{"role": "assistant", "content": "b"}], 1)
    ] * 2
    assert {row["rejected"][0]["content"] for row in rows} == {"a", "c"}
    assert rows[0]["prompt"] == [{"role": "user", "content": "q"}]


def test_trl_preferences_and_hh_transcripts_come_in(store, tmp_path):
    rows = [
        {"prompt": "q1", "chosen": "yes", "rejected": "no"},
        {
            "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "q2"}],
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "chosen": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: Assistant: who?\n\nAssistant: me",
            "rejected": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: Assistant: who?\n\nAssistant: you",
        },
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: b"},
        {"prompt": "q3", "chosen": "same", "rejected": "same"},
        {
            "chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c",
            "rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: d",
        },
    ]
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    assert exchange.read(store, path, rater="ann") == {
        "added": 3,
        "the two conversations part before the last answer": 1,
        "both answers are the same": 1,
        "turns do not alternate from user to assistant": 1,
    }
    pairs = {row["chosen"][0]["content"]: row for row in exchange.preferences(store)}
    assert set(pairs) == {"yes", "good", "me"}
    assert [turn["role"] for turn in pairs["me"]["prompt"]] == ["user", "assistant", "user"]
    assert pairs["me"]["prompt"][2]["content"] == "Assistant: who?"
    assert pairs["good"]["prompt"][0] == {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        '{"prompt": "q"}',
        '{"prompt": "q", "chosen": 1, "rejected": "b"}',
        '{"prompt": "q", "completions": ["a", "b"], "ranks": [1, 3]}',
        '{"prompt": "q", "completions": ["a"], "ranks": [1]}',
        '{"chosen": "hello", "rejected": "hello!"}',
        "[]",
    ],
)
def test_a_line_that_is_no_comparison_is_named_and_nothing_is_added(store, tmp_path, bad):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n' + bad + "\n")
    with pytest.raises(UserError, match=r"pairs.jsonl.* no comparison .*nothing was added"):
        exchange.read(store, path, rater="ann")
    assert store.counts()["judgements"] == 0


def test_what_people_preferred_comes_in_whole(store):
    """The quickstart's real human comparisons."""
    counts = exchange.read(store, QUICKSTART / "comparisons.jsonl.gz", rater="people")
    assert counts["added"] == sum(1 for _ in exchange.preferences(store)) > 500
