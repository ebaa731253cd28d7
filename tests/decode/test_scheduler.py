"""Continuous batching: what a request gets does not depend on what it shares the model with."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from jaxtrain.decode import drafts
from jaxtrain.decode.request import Full, Request, ends_with
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.runtime.errors import UserError

NUCLEUS = Settings(temperature=0.7, top_p=0.9)
RNG = np.random.default_rng(5)
REQUESTS = [
    Request(
        prompt=RNG.integers(1, 96, RNG.integers(1, 40)).tolist(),
        max_new=int(RNG.integers(1, 20)),
        settings=NUCLEUS if i % 3 else Settings(temperature=0, repetition_penalty=1.0 + i / 10),
        seed=i,
    )
    for i in range(11)
]


@pytest.fixture(autouse=True)
def one_device(make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        yield


@pytest.fixture(scope="module")
def model(draw, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=1)):
        return draw()


@pytest.fixture(scope="module")
def scheduler(model, make_mesh) -> Scheduler:
    with jax.set_mesh(make_mesh(fsdp=1)):
        return Scheduler(model, rows=4, max_length=64)


@pytest.fixture(scope="module")
def alone(scheduler):
    """Each request with the model to itself."""
    return [scheduler.complete([request])[0] for request in REQUESTS]


@pytest.fixture(scope="module")
def full(model):
    forward = jax.jit(lambda model, tokens: model(tokens))

    def run(ids: list[int]) -> np.ndarray:
        padded = np.zeros((1, 64), np.int32)
        padded[0, : len(ids)] = ids
        return np.asarray(forward(model, padded), np.float64)[0, : len(ids)]

    return run


def test_a_request_does_not_depend_on_its_neighbours(scheduler, alone):
    """All at once, in the other order, and one after the other while others are under way."""
    together = scheduler.complete(REQUESTS)
    backwards = scheduler.complete(REQUESTS[::-1])[::-1]
    staggered = []
    for request in REQUESTS:
        staggered.append(scheduler.submit(request))
        scheduler.step()
    scheduler.complete([])
    while not all(answer.reason for answer in staggered):
        scheduler.step()
    for found in (together, backwards, staggered):
        for one, other in zip(alone, found, strict=True):
            assert one.ids == other.ids
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-6)
    assert all(len(answer.ids) == answer.request.max_new for answer in alone)
    assert len({tuple(answer.ids) for answer in alone}) == len(REQUESTS)
    assert scheduler.busy == scheduler.waiting == 0


def test_logprobs_are_those_of_one_full_forward(alone, full):
    """Teacher-forced, in float64: of the distribution sampled from (T = .7, top-p) and of the raw one."""
    checked = 0
    for answer in alone:
        if answer.request.settings != NUCLEUS:
            continue
        prompt = list(answer.request.prompt)
        logits = full([*prompt, *answer.ids])[len(prompt) - 1 : -1]
        for n, token in enumerate(answer.ids):
            raw = logits[n] - np.log(np.exp(logits[n]).sum())
            shaped = np.exp(logits[n] / 0.7)
            shaped /= shaped.sum()
            order = np.argsort(-shaped)
            kept = order[np.cumsum(shaped[order]) - shaped[order] < 0.9]
            assert token in kept
            assert abs(answer.logprobs[n] - np.log(shaped[token] / shaped[kept].sum())) < 1e-4
            assert abs(answer.raw_logprobs[n] - raw[token]) < 1e-4
            checked += 1
    assert checked > 30


def test_rows_are_refilled_as_requests_end(model, alone, full):
    """Lengths 1 to 16 in two rows: as many turns as the tokens need, not as the longest of each pair."""
    scheduler = Scheduler(model, rows=2, max_length=64)
    lengths = [1, 16, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    answers = [scheduler.submit(Request(prompt=[7], max_new=n, seed=n)) for n in lengths]
    turns = 0
    while scheduler.step():
        turns += 1
    assert [len(answer.ids) for answer in answers] == lengths
    assert turns < 16 + len(lengths), "each request loses at most the turn that is read late"


def test_a_long_prompt_is_read_in_pieces_and_the_slots_grow(model):
    """300 tokens are a piece of 256 and two of 32; 256 slots become more. Greedy as by full forwards."""
    scheduler = Scheduler(model, rows=1, max_length=320)
    prompt = np.random.default_rng(1).integers(1, 96, 300).tolist()
    short, long = scheduler.complete(
        [
            Request(prompt=prompt[:20], max_new=4, settings=Settings(temperature=0)),
            Request(prompt=prompt, max_new=6, settings=Settings(temperature=0)),
        ]
    )
    forward = jax.jit(lambda model, tokens: model(tokens))
    for answer in (short, long):
        whole = np.zeros((1, 320), np.int32)
        start, ids = len(answer.request.prompt), [*answer.request.prompt, *answer.ids]
        whole[0, : len(ids)] = ids
        assert (
            answer.ids == np.asarray(forward(model, whole))[0].argmax(-1)[start - 1 : len(ids) - 1].tolist()
        )


def test_what_prompts_begin_with_is_read_once(model, scheduler, make_mesh):
    """Whoever asks, decoding or done; and no token is another for it."""
    rng = np.random.default_rng(3)
    system, apart = rng.integers(1, 96, 64).tolist(), rng.integers(1, 96, 64).tolist()
    requests = [
        Request(prompt=[*beginning, *rng.integers(1, 96, n).tolist()], max_new=9, settings=NUCLEUS, seed=n)
        for n, beginning in enumerate([system] * 5 + [apart] * 2 + [system] * 2, 1)
    ]
    requests.append(dataclasses.replace(requests[0], seed=1))
    alone = [Scheduler(model, rows=1, max_length=128).complete([request])[0] for request in requests[:3]]
    shared = Scheduler(model, rows=4, max_length=128)
    found = shared.complete(requests)
    for one, other in zip(alone, found[:3], strict=True):
        assert one.ids == other.ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
    assert found[-1].ids == found[0].ids
    assert shared.shared_tokens == (len(requests) - 2) * len(system)
    before = shared.shared_tokens
    assert shared.complete(requests[:1] * 3)[2].ids == found[0].ids
    assert shared.shared_tokens - before == 3 * (len(requests[0].prompt) - 1), "as a whole"
    talk = Request(prompt=[*requests[0].prompt, *found[0].ids, 5], max_new=3, settings=NUCLEUS)
    (again,) = shared.complete([talk])
    assert shared.prompt_tokens == sum(len(r.prompt) for r in [*requests, *requests[:1] * 3, talk])
    assert again.ids == Scheduler(model, rows=1, max_length=128).complete([talk])[0].ids


def test_prompts_are_read_beside_what_decodes(model):
    """While most rows decode, a long prompt is read in small pieces, with a turn behind each."""
    scheduler = Scheduler(model, rows=2, max_length=320)
    first = scheduler.submit(Request(prompt=[5], max_new=100))
    scheduler.step()
    prompt = np.random.default_rng(1).integers(1, 96, 200).tolist()
    second = scheduler.submit(Request(prompt=prompt, max_new=4, settings=Settings(temperature=0)))
    while not second.ids:
        scheduler.step()
    assert len(first.ids) >= 200 // 32
    scheduler.complete([])
    while scheduler.step():
        pass
    alone = Scheduler(model, rows=1, max_length=320).complete([second.request])[0]
    assert second.ids == alone.ids and len(first.ids) == 100


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_guesses_change_no_token(draw, temperature):
    """A model that repeats itself: turns are saved, and at any temperature each token is the same."""
    scheduler, guessing = (Scheduler(draw(0), rows=2, max_length=128, guess=guess) for guess in (False, True))
    settings = Settings(temperature=temperature, repetition_penalty=1.01)
    rng = np.random.default_rng(2)
    requests = [
        Request(prompt=rng.integers(1, 96, n).tolist() * 2, max_new=80, settings=settings, seed=n)
        for n in (1, 5, 9)
    ]
    told = [dataclasses.replace(request, likeliest=2) for request in requests]
    plain, turns = scheduler.complete(told), 0
    found = [guessing.submit(request) for request in told]
    guessing._pace.ahead = lambda is_alone: drafts.AHEAD
    while guessing.step():
        turns += 1
    for one, other in zip(plain, found, strict=True):
        assert one.ids == other.ids and one.reason == other.reason == "length"
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert [list(tokens) for tokens in one.likeliest] == [list(tokens) for tokens in other.likeliest]
    assert turns < 160 if temperature else turns < 120, "160 without guesses"
    last = requests[2]  # whose row nobody has taken since
    longer = dataclasses.replace(last, prompt=[*last.prompt, *found[2].ids[:40]], max_new=20)
    assert guessing.complete([longer])[0].ids == scheduler.complete([longer])[0].ids
    assert guessing.shared_tokens >= 32


def test_a_guess_is_what_followed_before(make_mesh):
    rows = [[1, 2, 3, 9, 8, 1, 2], [1, 2, 3, 4, 1, 2], [5, 5, 5, 5], [7, 7]]
    tokens = np.zeros((4, 16), np.int32)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
    used, last = np.array([len(row) for row in rows], np.int32), np.array([3, 9, 5, 7], np.int32)
    with jax.set_mesh(make_mesh(fsdp=1)):
        found = np.asarray(drafts.guesses(tokens, used, last, 3)).tolist()
    assert found == [[9, 8, 1], [-1, -1, -1], [5, -1, -1], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("rates", "least", "most"),
    [
        ([0.25], 0, 0.02),  # many rows: a turn with guesses costs four
        ([0.8], 0.01, 0.2),
        ([3.0], 0.9, 1),
        ([4.0, 4.0, 0.7, 0.7, 0.7, 0.7, 4.0, 4.0], 0.9, 1),  # some misses in a row
    ],
)
def test_guesses_are_tried_as_often_as_that_costs_little(rates: list[float], least: float, most: float):
    pace, guessed = drafts.Pace(), 0
    for turn in range(4000):
        ahead = pace.ahead(is_alone=True)
        guessed += ahead > 0
        pace.measured(ahead, rates[turn % len(rates)] if ahead else 1.0, 1.0)
    assert least * 4000 <= guessed <= most * 4000


def test_guessing_begins_and_ends_when_the_text_changes():
    pace = drafts.Pace()
    for rate in (0.25, 3.0, 0.25, 3.0):
        guessed = 0
        for turn in range(1000):
            ahead = pace.ahead(is_alone=True)
            guessed += ahead > 0 and turn >= 400
            pace.measured(ahead, rate if ahead else 1.0, 1.0)
        assert guessed <= 12 if rate < 1 else guessed >= 560


def test_likeliest_tokens_and_the_prompt_are_told(scheduler, alone, full):
    request = dataclasses.replace(alone[1].request, likeliest=3, score_prompt=True)
    told, quiet = scheduler.complete([request, dataclasses.replace(request, likeliest=0)])
    prompt = list(request.prompt)
    logits = full([*prompt, *told.ids])
    raw = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for at, likeliest in enumerate([*told.prompt_likeliest, *told.likeliest]):
        assert list(likeliest) == np.argsort(-raw[at])[:3].tolist()
        np.testing.assert_allclose(list(likeliest.values()), np.sort(raw[at])[:-4:-1], atol=1e-4)
    wanted = raw[np.arange(len(prompt) - 1), prompt[1:]]
    for answer in (told, quiet):
        np.testing.assert_allclose(answer.prompt_logprobs, wanted, atol=1e-4)
        assert answer.ids == alone[1].ids
    assert not quiet.likeliest and not quiet.prompt_likeliest


def test_stops_and_limits(scheduler, alone):
    base = max(alone, key=lambda answer: len(answer.ids))
    ids, request = base.ids, base.request
    again = lambda **change: Request(  # noqa: E731
        prompt=request.prompt, max_new=request.max_new, settings=request.settings, seed=request.seed, **change
    )
    decode = lambda ids: "".join(chr(200 + i) for i in ids)  # noqa: E731
    text = decode(ids[3:5])
    by_id, by_text = scheduler.complete(
        [again(stop=(ids[2],)), again(is_over=ends_with(decode, ("never", text)))]
    )
    first = ids.index(ids[2]) + 1
    assert by_id.ids == ids[:first] and by_id.reason == "stop"
    assert by_text.ids == ids[: decode(ids).index(text) + 2] and by_text.reason == "stop"
    assert base.reason == "length"
    for wrong, words in (
        (Request(prompt=[], max_new=1), "at least one"),
        (Request(prompt=[1] * 60, max_new=5), "more than the 64"),
        (Request(prompt=[96], max_new=5), "not within 0 and 95"),
    ):
        with pytest.raises(UserError, match=words):
            scheduler.submit(wrong)


def test_a_turn_that_is_being_sent_survives_a_cancel(scheduler, alone, monkeypatch):
    """As a client's leaving does on another thread, between what the turn was told and its start."""
    first, second = (scheduler.submit(request) for request in REQUESTS[:2])
    while len(second.ids) < 1:
        scheduler.step()
    put = scheduler._put

    def cancelling(rows: np.ndarray) -> jax.Array:
        scheduler.cancel(first)
        return put(rows)

    monkeypatch.setattr(scheduler, "_put", cancelling)
    while not second.reason:
        scheduler.step()
    assert first.reason == "cancelled" and second.ids == alone[1].ids
    assert scheduler.busy == scheduler.waiting == 0


def test_cancelling_frees_the_row_and_the_queue_has_an_end(model):
    scheduler = Scheduler(model, rows=1, max_length=64, queue=2)
    heard: list[tuple[int, str]] = []
    first = scheduler.submit(
        Request(prompt=[5], max_new=50), listen=lambda answer: heard.append((len(answer.ids), answer.reason))
    )
    scheduler.step()
    scheduler.step()
    waiting = [scheduler.submit(Request(prompt=[6], max_new=3)) for _ in range(2)]
    with pytest.raises(Full, match="2 requests wait"):
        scheduler.submit(Request(prompt=[6], max_new=3))
    scheduler.cancel(waiting[0])
    scheduler.cancel(first)
    assert scheduler.busy == 0 and scheduler.waiting == 1
    while scheduler.step():
        pass
    assert first.reason == "cancelled" == waiting[0].reason and not waiting[0].ids
    assert len(waiting[1].ids) == 3 and waiting[1].reason == "length"
    assert heard == [(1, ""), (1, "cancelled")], "nothing is heard of it afterwards"
    assert scheduler.ended == {"cancelled": 2, "length": 1}


def test_a_thread_serves_and_ends(scheduler, alone):
    stop = threading.Event()
    thread = threading.Thread(target=scheduler.run, args=(stop,))
    thread.start()
    done = threading.Event()
    answer = scheduler.submit(REQUESTS[1], listen=lambda answer: answer.reason and done.set())
    assert done.wait(60) and answer.ids == alone[1].ids
    stop.set()
    scheduler.wake()
    thread.join(60)
    assert not thread.is_alive()


def test_the_mesh_does_not_change_the_text(draw, alone, make_mesh):
    with jax.set_mesh(make_mesh(fsdp=2, tensor=2)):
        scheduler = Scheduler(draw(), rows=3, max_length=64)
        assert scheduler.rows == 4
        found = scheduler.complete(REQUESTS[:5])
    assert [answer.ids for answer in found] == [answer.ids for answer in alone[:5]]
