"""Benchmark items as ids, and what the model makes of them: how likely choices are, and what it answers."""

from collections.abc import Sequence
from typing import Any

from jaxtrain.decode.answers import answers
from jaxtrain.decode.dialogues import Dialogue, Drawn, Played, beginning, ending, opening, play
from jaxtrain.decode.request import Request, ends_with
from jaxtrain.decode.sampling import Settings
from jaxtrain.decode.scheduler import Scheduler
from jaxtrain.evaluate.likelihood import Likelihood, likelihoods
from jaxtrain.model.transformer import Transformer
from jaxtrain.tasks.task import Item
from jaxtrain.tokenize.tokenizer import Tokenizer


class Scorer:
    """A model and its tokenizer, as the tasks use them.

    length: most tokens of a context with its continuation. batch_size: rows of that length in a batch;
    shorter ones are more.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, length: int, batch_size: int):
        self.model, self.tokenizer, self.length, self.batch_size = model, tokenizer, length, batch_size
        self.start = beginning(tokenizer)

    def choices(self, items: Sequence[Item], what: str = "", is_alone: bool = False) -> list[list[float]]:
        """log p(continuation | context), nats, of every choice of every item.

        is_alone: behind `unconditional` in the place of its context: how likely each choice is by itself.
        """
        pairs = [
            (item.unconditional if is_alone else context, continuation)
            for item in items
            for context, continuation in zip(item.contexts, item.continuations, strict=True)
        ]
        found = iter(self.pairs(pairs, what))
        return [[next(found).nats for _ in item.continuations] for item in items]

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

    def written(self, asked: Sequence[Any], **settings: Any) -> list[str]:
        """What follows messages or ids, up to the model's end of text or of its turn."""
        found = answers(self.model, self.tokenizer, asked, rows=self.batch_size, **settings)
        return [self.tokenizer.decode([i for i in ids if i not in self.tokenizer.stop]) for ids in found]

    def dialogues(self, items: Sequence[Played], what: str = "answers") -> list[Dialogue]:
        """Each item played to its end, by the likeliest tokens; what was read in one turn serves the next."""
        most = [min(item.tokens, self.length // 2) for item in items]
        # a prompt that does not fit loses its beginning
        openings = [
            opening(item, self.tokenizer)[-(self.length - tokens) :]
            for item, tokens in zip(items, most, strict=True)
        ]
        longest = max(len(ids) + tokens for ids, tokens in zip(openings, most, strict=True))
        if any(item.turns > 1 for item in items):
            longest = self.length
        scheduler = Scheduler(self.model, rows=min(self.batch_size, len(items)), max_length=longest)

        def draw(prompts: list[list[int]], numbers: list[int], turn: int) -> list[Drawn]:
            requests = [
                Request(
                    prompt=prompt,
                    max_new=most[number],
                    settings=Settings(temperature=0),
                    stop=(ending(items[number], self.tokenizer),),
                    is_over=ends_with(self.tokenizer.decode, items[number].stops),
                )
                for number, prompt in zip(numbers, prompts, strict=True)
            ]
            return [(answer.ids, answer.logprobs) for answer in scheduler.complete(requests, what)]

        return play(items, openings, self.tokenizer, draw, tokens=max(most), room=self.length)
