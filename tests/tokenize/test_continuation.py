"""Dialogues, token in and token out: what is trained is what was sampled, for every template."""

import json
import random
from threading import Event

import pytest

from jaxtrain.decode.dialogues import continuation, opening, play
from jaxtrain.tasks.environment import Episode, Reply
from jaxtrain.tokenize import chat
from jaxtrain.tokenize.chat import form_of_calls, render
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
from jaxtrain.tokenize.templates import TEMPLATES

ROOM, TOKENS = 4000, 40
NAMES = [*TEMPLATES, "own"]


@pytest.fixture
def named(bare, tokenizer):
    """A tokenizer with the template of a name."""

    def work(name: str):
        return tokenizer if name == "own" else chat.named(HuggingFaceTokenizer.load(bare), name)

    return work


def echo(text: str, times: int = 1) -> str:
    """Say it again."""
    return text * times


class World:
    """Replies with what it is given, then ends."""

    def __init__(self, replies: list[str]):
        self.replies, self.heard = list(replies), []

    def start(self) -> str:
        return "Begin."

    def step(self, said: str) -> Reply:
        self.heard.append(said)
        return Reply(self.replies.pop(0)) if self.replies else Reply(reward=1.0, done=True)


def word(rng: random.Random, names: list[str]) -> str:
    """Text as people and tools write it, texts of special tokens among it."""
    pieces = ["so", "é", "🌷", "\n", " ", "<tool_call>", "{", "1 + 1", "user", *names]
    return "".join(rng.choice(pieces) for _ in range(rng.randint(1, 6))) + "."


def specials(tokenizer, ids: list[int]) -> int:
    return sum(token in tokenizer.special.values() for token in ids)


def one_by_one(tokenizer, text: str) -> list[int]:
    """The text in tokens that no tokenizer would choose: letter by letter."""
    return [token for letter in text for token in tokenizer.encode(letter)]


def played(tokenizer, rng: random.Random, count: int):
    """Random dialogues, what was drawn for each, and what its world said."""
    names, form = list(tokenizer.special), form_of_calls(tokenizer)
    ordinary = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.special.values()))
    items, drawn, told = [], [[] for _ in range(count)], []
    for _ in range(count):
        replies = [word(rng, names) for _ in range(rng.randint(0, 4))]
        tools = (echo,) if form and rng.random() < 0.5 else ()
        items.append(Episode(begin=lambda replies=replies: World(replies), tools=tools, turns=6))
        told.append(replies)

    def draw(prompts, numbers, turn):
        answers = []
        for number, prompt in zip(numbers, prompts, strict=True):
            if items[number].tools and rng.random() < 0.5:
                key = {"tags": "arguments", "bare": "parameters"}[form]
                call = json.dumps({"name": "echo", key: {"text": word(rng, names)}})
                call = f"<tool_call>\n{call}\n</tool_call>" if form == "tags" else call
                ids = [*one_by_one(tokenizer, call), tokenizer.end]
            else:
                ids = [rng.choice(ordinary) for _ in range(rng.randint(0, TOKENS - 1))]
                ids += [tokenizer.end] * (rng.random() < 0.7)
            ids = ids or [ordinary[0]]
            drawn[number].append(ids)
            answers.append((ids, [-float(len(prompt))] * len(ids)))
        return answers

    openings = [opening(item, tokenizer) for item in items]
    return play(items, openings, tokenizer, draw, tokens=TOKENS, room=ROOM), drawn, told


@pytest.mark.parametrize("count", [25, pytest.param(2_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_trained_is_what_was_sampled(named, name, count):
    tokenizer = named(name)
    dialogues, drawn, told = played(tokenizer, random.Random(7), count)
    calls, usual = 0, specials(tokenizer, continuation([{"role": "user", "content": "so"}], tokenizer))
    for one, answers, replies in zip(dialogues, drawn, told, strict=True):
        behind = one.ids[one.opening :]
        assert len(one.mask) == len(one.logprobs) == len(behind)
        sampled = [token for token, is_sampled in zip(behind, one.mask, strict=True) if is_sampled]
        assert sampled == [token for ids in answers for token in ids]
        assert all(
            (logprob != 0) == is_sampled for logprob, is_sampled in zip(one.logprobs, one.mask, strict=True)
        )
        given = [token for token, is_sampled in zip(behind, one.mask, strict=True) if not is_sampled]
        # no word of the world becomes a special token: those that stand there are of turns alone
        cut = sum(ids[-1] != tokenizer.end for ids in answers[:-1])
        assert specials(tokenizer, given) == usual * (one.turns - 1) + cut
        if one.turns > 1 and not one.calls:
            assert replies[0].strip() in tokenizer.decode(given)
        calls += one.calls
    assert any(one.turns > 3 for one in dialogues)
    assert (calls > 0) == bool(form_of_calls(tokenizer))


class Hangs(World):
    def step(self, said: str) -> Reply:
        Event().wait()
        return Reply()


def test_a_world_that_hangs_ends_its_own_dialogue_alone(named):
    tokenizer = named("own")
    ids = [*tokenizer.encode("So."), tokenizer.end]
    items = [Episode(begin=lambda kind=kind: kind(["Go on."]), seconds=0.5) for kind in (Hangs, World)]
    found = play(
        items,
        [opening(item, tokenizer) for item in items],
        tokenizer,
        lambda prompts, numbers, turn: [(ids, [0.0] * len(ids))] * len(prompts),
        tokens=TOKENS,
        room=ROOM,
    )
    assert [(one.turns, one.reason, one.reward) for one in found] == [(1, "time", 0.0), (2, "done", 1.0)]


@pytest.mark.parametrize("name", NAMES)
def test_a_dialogue_of_usual_tokens_is_the_conversation_as_it_is_rendered(named, name):
    tokenizer, replies = named(name), ["Higher.", "Lower!"]
    said = ["I say 3", "Then 7", "5, it is"]
    texts = iter(said)
    item = Episode(begin=lambda: World(replies))

    def draw(prompts, numbers, turn):
        ids = [*tokenizer.encode(next(texts)), tokenizer.end]
        return [(ids, [0.0] * len(ids))]

    (one,) = play([item], [opening(item, tokenizer)], tokenizer, draw, tokens=TOKENS, room=ROOM)
    talk = [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": said[0]}]
    for reply, answer in zip(replies, said[1:], strict=True):
        talk += [{"role": "user", "content": reply}, {"role": "assistant", "content": answer}]
    ids, mask = render(talk, tokenizer)
    assert ids[: len(one.ids)] == one.ids
    assert mask[one.opening : len(one.ids)] == one.mask
    assert (one.turns, one.reward, one.reason, one.is_cut) == (3, 1.0, "done", False)


def test_dialogues_end_by_their_limits(named):
    tokenizer = named("chatml")
    ids = [*tokenizer.encode("no"), tokenizer.end]

    def reasons(**limits) -> str:
        item = Episode(begin=lambda: World(["again"] * 99), **{"turns": 9} | limits)
        room = 60 if not limits else ROOM
        draw = lambda prompts, numbers, turn: [(ids, [0.0] * len(ids))]  # noqa: E731
        (one,) = play([item], [opening(item, tokenizer)], tokenizer, draw, tokens=10, room=room)
        assert len(one.ids) <= room
        return one.reason

    assert [reasons(), reasons(turns=2), reasons(seconds=0.0)] == ["length", "turns", "time"]
