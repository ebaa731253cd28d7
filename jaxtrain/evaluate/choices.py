"""Benchmark items as ids, and what the model makes of them: choices, blanks, and answers written out."""

from collections.abc import Sequence

from jaxtrain.decode.generate import sample
from jaxtrain.document import batched
from jaxtrain.evaluate.likelihood import Likelihood, likelihoods
from jaxtrain.model.transformer import Transformer
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.progress import track
from jaxtrain.tasks.task import Blank, Exercise, Item
from jaxtrain.tokenize.huggingface import HuggingFaceTokenizer
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

    def answers(self, items: Sequence[Exercise], what: str = "") -> list[str]:
        """What the model writes after each prompt, greedily, up to a stop."""
        order = sorted(range(len(items)), key=lambda i: (items[i].tokens, len(items[i].prompt)))
        answers = [""] * len(items)
        for batch in track(list(batched(order, self.rows)), what or "answers"):
            most = min(max(items[i].tokens for i in batch), self.length // 2)
            prompts = [[*self.start, *self.tokenizer.encode(items[i].prompt)] for i in batch]
            texts = self.written(prompts, self.rows, ends=(self.tokenizer.eos,), most=most)
            for i, text in zip(batch, texts, strict=True):
                answers[i] = until(text, items[i].stops)
        return answers

    @property
    def rows(self) -> int:
        """Of a batch that the devices share evenly."""
        return -(-self.batch_size // meshes.batch_rows()) * meshes.batch_rows()

    def written(
        self,
        prompts: Sequence[list[int]],
        rows: int,
        *,
        ends: tuple[int, ...],
        most: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """What follows each prompt, of which the end counts, up to the first of `ends`; `most` tokens of it.

        rows: of a batch; all have one shape.
        """
        texts, room = [], self.length - most
        for first in range(0, len(prompts), rows):
            batch = [prompt[-room:] for prompt in prompts[first : first + rows]]
            ids = sample(
                self.model,
                [*batch, *[batch[0]] * (rows - len(batch))],
                seed=seed + first,
                max_new=most,
                stop=ends,
                pad=self.tokenizer.pad,
                temperature=temperature,
            )
            for row in ids[: len(batch)]:
                texts.append(self.tokenizer.decode(row[:-1] if row[-1] in ends else row))
        return texts


def until(text: str, stops: Sequence[str]) -> str:
    """`text` before the first stop."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return text[: min(ends, default=len(text))]


def beginning(tokenizer: Tokenizer) -> list[int]:
    """What stands before a text: `bos` for models of this project, else what the tokenizer puts there."""
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return tokenizer.trusting.encode("", add_special_tokens=True).ids
    return [tokenizer.bos]
