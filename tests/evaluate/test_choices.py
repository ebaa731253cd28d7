"""Log-likelihoods of choices against float64 on the logits of one sequence a row."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.evaluate import choices
from jaxtrain.evaluate.choices import Scorer
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.tasks.catalog import TASKS
from jaxtrain.tasks.environment import Episode, Reply
from jaxtrain.tasks.task import Exercise, Item
from jaxtrain.tokenize.tokenizer import Tokenizer
from jaxtrain.weights import folder as store

DATA = Path(__file__).parents[2] / "data" / "quickstart"
LENGTH = 128  # room for two or three choices a row


@pytest.fixture(scope="module")
def tokenizer(tiny) -> Tokenizer:
    return Tokenizer.load(tiny / "runs" / "tiny" / "5_finetune" / "tokenizer")


@pytest.fixture(scope="module")
def model(tiny) -> Transformer:
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        return store.load(tiny / "runs" / "tiny" / "5_finetune")


@pytest.fixture(autouse=True)
def one():
    with jax.set_mesh(meshes.make(MeshConfig(), jax.devices()[:1])):
        yield


def call(model, tokenizer, items, batch_size=4, length=LENGTH) -> list[list[float]]:
    return Scorer(model, tokenizer, length=length, batch_size=batch_size).choices(items)


_logits = jax.jit(lambda model, tokens: model(tokens))


def alone(model: Transformer, tokenizer: Tokenizer, item: Item) -> list[float]:
    """Each choice in a row by itself: the sum over its continuation's tokens of log softmax, float64."""
    found = []
    for context, continuation in zip(item.contexts, item.continuations, strict=True):
        whole = tokenizer.encode(context + continuation)
        scored = len(whole) - len(tokenizer.encode(context))
        ids = [tokenizer.bos, *whole]
        if len(ids) > LENGTH:
            ids = [tokenizer.bos, *whole[len(whole) - LENGTH + 1 :]]
        row = np.array([ids + [tokenizer.pad] * (LENGTH - len(ids))], np.int32)
        logits = np.asarray(_logits(model, row), np.float64)[0]
        total = 0.0
        for at in range(len(ids) - scored, len(ids)):
            before = logits[at - 1] - logits[at - 1].max()
            total += before[ids[at]] - np.log(np.exp(before).sum())
        found.append(total)
    return found


@pytest.mark.parametrize("task", [TASKS["arc_easy"], TASKS["winogrande"]], ids=lambda task: task.name)
def test_they_are_what_each_choice_gets_by_itself(model, tokenizer, task):
    items = task.load(DATA)[:12]
    found = call(model, tokenizer, items)
    assert [len(values) for values in found] == [len(item.continuations) for item in items]
    for values, item in zip(found, items, strict=True):
        np.testing.assert_allclose(values, alone(model, tokenizer, item), atol=1e-4)


def test_neither_batch_nor_neighbours_move_a_score(model, tokenizer):
    items = TASKS["arc_easy"].load(DATA)[:10]
    together = call(model, tokenizer, items)
    np.testing.assert_allclose(
        np.concatenate(call(model, tokenizer, items[::-1])[::-1]), np.concatenate(together), atol=1e-4
    )
    by_one = call(model, tokenizer, items[:1])
    np.testing.assert_allclose(np.concatenate(by_one), np.concatenate(together[:1]), atol=1e-4)


def test_a_long_context_loses_its_beginning(model, tokenizer):
    """Only what is left of the context counts, and the continuation is scored whole."""
    ending = "The answer to all of these questions is"
    choices = (" a good friend", " the city")
    items = [
        Item(contexts=(start * 120 + ending,) * 2, continuations=choices, answer=0)
        for start in ("One thing. ", "Another thing. ")
    ]
    assert min(len(tokenizer.encode(item.contexts[0])) for item in items) > 2 * LENGTH
    found = call(model, tokenizer, items)
    for values, item in zip(found, items, strict=True):
        np.testing.assert_allclose(values, alone(model, tokenizer, item), atol=1e-4)


def test_a_continuation_that_fills_the_row_is_scored_as_far_as_it_fits(model, tokenizer):
    item = Item(contexts=("Say:", "Say:"), continuations=(" word" * 100, " no"), answer=1)
    (values,) = call(model, tokenizer, [item])
    assert np.isfinite(values).all()
    assert values[0] < -LENGTH / 2, "every token that is left is scored"


def test_a_blank_is_right_where_every_token_is_the_first_guess(model, tokenizer):
    scorer = Scorer(model, tokenizer, length=LENGTH, batch_size=4)
    (written,) = answers(scorer, [Exercise(prompt="The city of", graders={}, tokens=4)])
    wrong = "zq" if not written.startswith("zq") else "qz"
    texts = (written, wrong, f"{written} {wrong}")
    right, off, late = scorer.pairs([("The city of", text) for text in texts])
    assert (right.is_greedy, off.is_greedy, late.is_greedy) == (True, False, False)
    assert late.nats < right.nats < 0


def answers(scorer: Scorer, items: list[Exercise]) -> list[str]:
    return [one.said for one in scorer.dialogues(items)]


def test_an_answer_ends_before_its_stop_and_nothing_is_drawn_behind_it(model, tokenizer):
    scorer = Scorer(model, tokenizer, length=LENGTH, batch_size=4)
    exercises = [Exercise(prompt=prompt, graders={}, tokens=40) for prompt in ("She said", "def f")]
    whole = answers(scorer, exercises)
    assert whole[::-1] == answers(scorer, exercises[::-1]), "neighbours do not matter"
    stop = whole[0][3:5]
    (cut,) = scorer.dialogues([replace(exercises[0], stops=(stop,))])
    assert cut.said == whole[0][: whole[0].index(stop)]
    assert len(cut.mask) < 12 and stop in tokenizer.decode(cut.ids[cut.opening :]) and not cut.is_cut


def test_a_dialogue_has_one_scheduler_that_reads_no_turn_twice(model, tokenizer, monkeypatch):
    made = []

    class Kept(Scheduler):
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            made.append(self)

    monkeypatch.setattr(choices, "Scheduler", Kept)
    items = [Episode(begin=Patient, turns=4, tokens=8) for _ in range(2)]
    found = Scorer(model, tokenizer, length=256, batch_size=2).dialogues(items)
    assert [one.turns for one in found] == [4, 4]
    (scheduler,) = made
    openings = sum(one.opening for one in found)
    assert scheduler.shared_tokens > 2 * openings, "what stood there is not read again"


class Patient:
    """A world that goes on."""

    def start(self) -> str:
        return "Tell me of the city, its people and its river, and of all that they have seen there."

    def step(self, said: str) -> Reply:
        return Reply("More.")


def test_unconditional_is_the_choice_behind_its_own_context(model, tokenizer):
    items = [replace(item, unconditional="A:") for item in TASKS["arc_easy"].load(DATA)[:3]]
    scorer = Scorer(model, tokenizer, length=LENGTH, batch_size=4)
    bare = [replace(item, contexts=("A:",) * len(item.contexts)) for item in items]
    np.testing.assert_allclose(
        np.concatenate(scorer.choices(items, is_alone=True)),
        np.concatenate(scorer.choices(bare)),
        atol=1e-4,
    )


def test_on_a_mesh_they_are_the_same(tiny, tokenizer, model):
    items = TASKS["arc_easy"].load(DATA)[:5]
    alone = call(model, tokenizer, items)
    with jax.set_mesh(meshes.make(MeshConfig(data=2, fsdp=2, tensor=2))):
        sharded = store.load(tiny / "runs" / "tiny" / "5_finetune")
        np.testing.assert_allclose(
            np.concatenate(call(sharded, tokenizer, items)), np.concatenate(alone), atol=1e-4
        )
