"""The ratings database: who gets which task, what stands after a judgement, and the exported files."""

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtrain.rate.exchange import export, rankings
from jaxtrain.rate.overview import overview
from jaxtrain.rate.store import Sample, Store, prompt_key
from jaxtrain.runtime.errors import UserError


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/ratings.sqlite"


@pytest.fixture
def store(url):
    with Store(url) as store:
        yield store


def messages(text):
    return [{"role": "user", "content": text}]


def fill(store, tasks=3, answers=2):
    """Tasks whose answers are named after prompt and number; returns their ids."""
    made = []
    for n in range(tasks):
        prompt = store.add_prompt(messages(f"question {n}"))
        samples = [Sample(text=f"answer {n}.{k}", token_ids=[n, k]) for k in range(answers)]
        made.append(store.add_task(prompt, samples, seed=n))
    return made


def test_a_prompt_and_a_rater_are_stored_once(store):
    assert (
        store.add_prompt(messages("hi"))
        == store.add_prompt(messages("hi"))
        != store.add_prompt(messages("ho"))
    )
    assert store.add_rater("ann", simulated=False) == store.add_rater("ann", simulated=False)
    with pytest.raises(UserError, match="'ann' is a person"):
        store.add_rater("ann", simulated=True)


def test_the_display_order_is_drawn_by_the_seed_and_stays(store):
    """Programs share one; every person has an order of their own, also when the page comes again."""
    prompt = store.add_prompt(messages("q"))
    samples = [Sample(text=str(k), checkpoint=f"model {k}") for k in range(6)]
    for seed in (1, 1, 2):
        store.add_task(prompt, samples, seed)
    names = {"ann": False, "bob": False, "one": True, "two": True}
    raters = {name: store.add_rater(name, simulated) for name, simulated in names.items()}
    shown: dict[str, list[list[str]]] = {name: [] for name in raters}
    for name, rater in raters.items():
        for _ in range(3):
            task = store.next_task(rater, now=0, overlap=4)
            assert store.next_task(rater, now=1_000, overlap=4) == task == store.next_task(rater, now=1_001)
            shown[name].append(task.completions)
            store.judge(task.task, rater, [1 + int(text) for text in task.completions], now=1_002)
    assert shown["one"] == shown["two"] and shown["one"][0] == shown["one"][1] != shown["one"][2]
    assert shown["ann"] != shown["bob"] != shown["one"] != shown["ann"]
    assert all(sorted(task) == list("012345") for tasks in shown.values() for task in tasks)
    for one in store.comparisons():  # what each rank and checkpoint belongs to
        assert [1 + int(text) for text in one.completions] == one.ranks
        assert [f"model {text}" for text in one.completions] == one.checkpoints
    assert overview(store)["agreement"]["pairwise"] == 1


def test_a_person_who_saw_a_task_is_imported_in_its_order(store):
    """Shown on the page, then judged in a file: the ranks stay with their answers."""
    (task,) = fill(store, tasks=1, answers=5)
    ann = store.add_rater("ann", False)
    store.next_task(ann, now=0)
    store.judge(task, ann, store.in_display_order(task, [1, 2, 3, 4, 5], ann), now=1)
    (judged,) = store.comparisons()
    assert sorted(zip(judged.ranks, judged.completions, strict=True)) == [
        (k + 1, f"answer 0.{k}") for k in range(5)
    ]


def test_fewest_judgements_come_first_and_nobody_sees_a_task_twice(store):
    first, second = fill(store, tasks=2)
    ann, bob = store.add_rater("ann", False), store.add_rater("bob", False)
    assert store.next_task(ann, now=0, overlap=2).task == first
    store.judge(first, ann, [1, 2], now=1)
    assert store.next_task(bob, now=2, overlap=2).task == second
    store.judge(second, bob, [1, 2], now=3)
    assert store.next_task(ann, now=4, overlap=2).task == second
    store.judge(second, ann, [2, 1], now=5)
    assert store.next_task(ann, now=6, overlap=2) is None
    assert store.next_task(bob, now=7, overlap=2).task == first


def test_a_lease_keeps_others_away_until_it_expires(store):
    (task,) = fill(store, tasks=1)
    ann, bob = store.add_rater("ann", False), store.add_rater("bob", False)
    assert store.next_task(ann, now=0, lease_seconds=60).task == task
    assert store.next_task(bob, now=59) is None
    assert (
        store.next_task(ann, now=30, lease_seconds=60).task == task
    )  # the page is reloaded: the lease is renewed
    assert store.next_task(bob, now=89) is None
    assert store.next_task(bob, now=90).task == task
    store.judge(task, ann, [1, 2], now=91)  # late, and still kept
    store.judge(task, bob, [1, 2], now=92)
    assert store.counts()["judgements"] == 2


def test_a_skipped_task_goes_to_somebody_else(store):
    (task,) = fill(store, tasks=1)
    ann, bob = store.add_rater("ann", False), store.add_rater("bob", False)
    store.judge(task, ann, [], skip=True, reason="not in English", now=0)
    assert store.next_task(ann, now=1) is None
    assert store.next_task(bob, now=1).task == task
    assert list(store.comparisons()) == []
    assert store.counts()["skipped"] == 1


@pytest.mark.parametrize("ranks", [[1], [1, 3], [0, 1], [2, 2], [1, 2, 3]])
def test_ranks_that_do_not_order_the_answers_are_refused(store, ranks):
    (task,) = fill(store, tasks=1)
    ann = store.add_rater("ann", False)
    with pytest.raises(UserError, match="1 is best"):
        store.judge(task, ann, ranks, now=0)
    assert store.counts()["judgements"] == 0


def test_a_judgement_stands(store):
    (task,) = fill(store, tasks=1)
    ann = store.add_rater("ann", False)
    store.judge(task, ann, [1, 2], now=0)
    with pytest.raises(UserError, match="has judged task 1 before"):
        store.judge(task, ann, [2, 1], now=1)
    assert [comparison.ranks for comparison in store.comparisons()] == [[1, 2]]


def test_what_is_missing_or_contradictory_is_an_error(store):
    (task,) = fill(store, tasks=1)
    ann = store.add_rater("ann", False)
    with pytest.raises(UserError, match="no task 9"):
        store.judge(9, ann, [1, 2], now=0)
    with pytest.raises(UserError, match="ranks, or skip"):
        store.judge(task, ann, [1, 2], skip=True, now=0)
    with pytest.raises(UserError, match="at least 2 answers"):
        store.add_task(1, [Sample(text="alone")], 0)
    with pytest.raises(UserError, match="sqlite:///ratings.sqlite"):
        Store("nothing://here")


@pytest.mark.parametrize("overlap", [1, 2])
def test_raters_who_ask_at_once_share_the_work_exactly(store, overlap):
    fill(store, tasks=12)
    raters = [store.add_rater(f"rater {n}", False) for n in range(4)]
    together = Barrier(len(raters))

    def work(rater):
        together.wait()
        done = []
        while assignment := store.next_task(rater, now=0, overlap=overlap):
            store.judge(assignment.task, rater, [1, 2], now=0)
            done.append(assignment.task)
        return done

    with ThreadPoolExecutor(len(raters)) as pool:
        done = list(pool.map(work, raters))
    assert all(len(set(mine)) == len(mine) for mine in done)
    assert Counter(task for mine in done for task in mine) == dict.fromkeys(range(1, 13), overlap)


def test_processes_that_open_one_new_database_at_once_each_get_their_own_task(url):
    program = (
        "import sys; from jaxtrain.rate.store import Sample, Store\n"
        "url, name = sys.argv[1:]\n"
        "with Store(url) as store:\n"
        "    rater = store.add_rater(name, False)\n"
        "    prompt = store.add_prompt([{'role': 'user', 'content': name}])\n"
        "    store.add_task(prompt, [Sample(text='a'), Sample(text='b')], 0)\n"
        "    print(store.next_task(rater, now=0).task)\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", program, url, name], stdout=subprocess.PIPE, text=True)
        for name in "abc"
    ]
    tasks = [int(process.communicate()[0]) for process in running]
    assert sorted(tasks) == [1, 2, 3]


def judged(url, tasks=40):
    with Store(url) as store:
        made = fill(store, tasks, answers=3)
        for name in ("zoe", "ann"):
            rater = store.add_rater(name, simulated=True)
            for task in made:
                store.judge(task, rater, [1, 2, 2], now=task)
        store.judge(made[0], store.add_rater("bob", False), [], skip=True, now=0)


def test_export_is_what_the_format_says(url, tmp_path):
    judged(url)
    with Store(url) as store:
        counts = export(rankings(store), tmp_path, 0.25)
        assert store.counts()["skipped"] == 1
    train, heldout = (
        pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("train", "heldout")
    )
    assert counts == {"train": len(train), "heldout": len(heldout)}
    assert len(train) + len(heldout) == 80 and 4 <= len(heldout) <= 40
    assert not {prompt_key(row["prompt"]) for row in train} & {prompt_key(row["prompt"]) for row in heldout}
    row = train[0]
    assert list(row) == ["prompt", "completions", "completion_ids", "ranks", "rater", "simulated"]
    number = int(row["prompt"][0]["content"].removeprefix("question "))
    assert row["prompt"] == messages(f"question {number}")
    assert [f"answer {n}.{k}" for n, k in row["completion_ids"]] == row["completions"]
    assert sorted(row["completions"]) == [f"answer {number}.{k}" for k in range(3)]
    assert (row["ranks"], row["rater"], row["simulated"]) == ([1, 2, 2], "ann", True)


def test_the_same_ratings_give_the_same_bytes(tmp_path):
    files = []
    for n in range(2):
        folder = tmp_path / str(n)
        folder.mkdir()
        judged(f"sqlite:///{folder}/ratings.sqlite")
        with Store(f"sqlite:///{folder}/ratings.sqlite") as store:
            export(rankings(store), folder, 0.5)
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert sorted(files[0]) == ["heldout.parquet", "ratings.sqlite", "train.parquet"]
    assert files[0] == files[1]


@given(st.lists(st.text(), unique=True, max_size=5))
def test_different_prompts_have_different_keys(texts):
    assert len({prompt_key(messages(text)) for text in texts}) == len(texts)
