"""Benchmark items as ids, and what the model makes of them: choices, blanks, and answers written out."""

from collections.abc import Sequence
from typing import Any

from jaxtrain.decode.answers import answers
from jaxtrain.decode.dialogues import Dialogue, Drawn, Played, beginning, ending, opening, play, until
from jaxtrain.evaluate.likelihood import Likelihood, likelihoods
from jaxtrain.model.transformer import Transformer
from jaxtrain.tasks.task import Blank, Exercise, Item
from jaxtrain.tokenize.tokenizer import Tokenizer


class Scorer:
    """A model and its tokenizer, as the tasks use them.

    length: most tokens of a context with its continuation. batch_size: rows of that length in a batch;
    shorter ones are more.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, length: int, batch_size: int):
        self.model, self.tokenizer, self.length, self.batch_size = model, tokenizer, length, batch_size
        self.start = beginning(tokenizer)

    def choices(self, items: Sequence[Item], what: str = "") -> list[list[float]]:
        """log p(continuation | context), nats, of every choice of every item."""
        pairs = [
            (context, continuation)
            for item in items
            for context, continuation in zip(item.contexts, item.continuations, strict=True)
        ]
        found = iter(self.pairs(pairs, what))
        return [[next(found).nats for _ in item.continuations] for item in items]

    def unconditional(self, items: Sequence[Item], what: str = "") -> list[list[float]]:
        """The same behind `unconditional` alone: how likely each choice is by itself."""
        pairs = [(item.unconditional, text) for item in items for text in item.continuations]
        order = sorted(range(len(pairs)), key=lambda i: pairs[i][0])
        found = dict(zip(order, self.pairs([pairs[i] for i in order], what), strict=True))
        places = iter(range(len(pairs)))
        return [[found[next(places)].nats for _ in item.continuations] for item in items]

    def blanks(self, items: Sequence[Blank], what: str = "") -> list[Likelihood]:
        """Of each item's continuation."""
        return self.pairs([(item.context, item.continuation) for item in items], what)

    def pairs(self, pairs: Sequence[tuple[str, str]], what: str = "") -> list[Likelihood]:
        """Of each continuation after its context.

        Context and continuation are tokenized as one text; what its last tokens make up beyond those of the
        context alone is the continuation, as in lm-eval; white space at the end of a context is its
        continuation's, as there. A text that does not fit loses its beginning.
        """
        pairs = [(context.rstrip(), context[len(context.rstrip()) :] + text) for context, text in pairs]
        contexts = self.tokenizer.encode_batch([context for context, _ in pairs])
        wholes = self.tokenizer.encode_batch([context + continuation for context, continuation in pairs])
        cut = []
        for context, whole in zip(contexts, wholes, strict=True):
            count = max(1, len(whole) - len(context))
            start = self.start or ([self.tokenizer.bos] if count == len(whole) else [])
            ids = [*start, *whole[-(self.length - len(start)) :]]
            count = min(count, len(ids) - 1)
            cut.append((ids[:-count], ids[-count:]))
        return self.likelihoods(cut, what)

    def likelihoods(self, pairs: Sequence[tuple[list[int], list[int]]], what: str = "") -> list[Likelihood]:
        """Of each continuation after its context, both as ids."""
        tokens, pad = self.batch_size * self.length, self.tokenizer.pad
        return likelihoods(self.model, pairs, tokens=tokens, pad=pad, what=what)

    def written(self, prompts: Sequence[list[int]], *, ends: tuple[int, ...], **settings: Any) -> list[str]:
        """What follows each prompt, of which the end counts, up to the first of `ends` (`sampled`)."""
        found = self.sampled(prompts, ends=ends, **settings)
        return [self.tokenizer.decode(ids[:-1] if ids[-1] in ends else ids) for ids in found]

    def sampled(
        self,
        prompts: Sequence[list[int]],
        *,
        ends: tuple[int, ...],
        most: Sequence[int],
        temperature: float = 0.0,
        seed: int = 0,
        what: str = "answers",
    ) -> list[list[int]]:
        """Ids that follow each prompt, of which the end counts, up to the first of `ends`.

        most: of each prompt, how many.
        """
        return answers(
            self.model,
            self.tokenizer,
            [prompt[-(self.length - count) :] for prompt, count in zip(prompts, most, strict=True)],
            max_new=most,
            stop=ends,
            temperature=temperature,
            seed=seed,
            rows=self.batch_size,
            what=what,
        )

    def dialogues(self, items: Sequence[Played], what: str = "") -> list[Dialogue]:
        """Each item played to its end, by the likeliest tokens."""
        most = [min(item.tokens, self.length // 2) for item in items]
        ends = (ending(items[0], self.tokenizer),)

        def draw(prompts: list[list[int]], numbers: list[int], turn: int) -> list[Drawn]:
            limits = [most[number] for number in numbers]
            found = self.sampled(prompts, ends=ends, most=limits, what=what or "answers")
            return [(ids, [0.0] * len(ids)) for ids in found]

        # a prompt that does not fit loses its beginning
        openings = [
            opening(item, self.tokenizer)[-(self.length - tokens) :]
            for item, tokens in zip(items, most, strict=True)
        ]
        return play(items, openings, self.tokenizer, draw, tokens=max(most), room=self.length)

    def answers(self, items: Sequence[Exercise], what: str = "") -> list[str]:
        """What the model answers to each, up to a stop."""
        played = self.dialogues(items, what)
        return [until(one.said, item.stops) for item, one in zip(items, played, strict=True)]
