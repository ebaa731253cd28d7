"""Answers of a model, as the ratings database takes them."""

from collections.abc import Sequence

from jaxtrain import weights
from jaxtrain.conversation import Messages
from jaxtrain.decode.generate import sample
from jaxtrain.rate.store import Sample
from jaxtrain.runtime.progress import track
from jaxtrain.tokenize.chat import render

SAMPLED_TOGETHER = 256
"""Answers sampled in one batch."""


def answers(
    folder: str,
    asked: Sequence[Messages],
    count: int,
    *,
    longest_prompt: int,
    max_new: int,
    temperature: float,
    seed: int,
) -> list[list[Sample]]:
    """`count` answers of a folder's model to each prompt, in its own template; on the mesh that is set."""
    source = weights.open(folder)
    model, tokenizer = source.load_to_use(), source.tokenizer
    rows = [render(prompt, tokenizer, generation_prompt=True)[0] for prompt in asked for _ in range(count)]
    settings = {"temperature": temperature, "max_new": max_new, "seed": seed}
    found: list[Sample] = []
    for first in track(range(0, len(rows), SAMPLED_TOGETHER), "sampling answers"):
        batch = rows[first : first + SAMPLED_TOGETHER]
        ids = sample(
            model,
            [*batch, *[batch[-1]] * (SAMPLED_TOGETHER - len(batch))],  # one shape, one compilation
            seed=seed + first,
            max_new=max_new,
            stop=tokenizer.end,
            pad=tokenizer.pad,
            prompt_length=longest_prompt,
            temperature=temperature,
        )
        for row in ids[: len(batch)]:
            text = tokenizer.decode([token for token in row if token != tokenizer.end])
            found.append(Sample(text=text, token_ids=row, checkpoint=folder, sampling=settings))
    return [found[at : at + count] for at in range(0, len(found), count)]
