"""Answers of a model, as the ratings database takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import jax

from jaxtrain import weights
from jaxtrain.conversation import Messages
from jaxtrain.decode.generate import sample
from jaxtrain.fields import Operational
from jaxtrain.rate.store import Sample
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.limits import Count, Limits
from jaxtrain.runtime.mesh import MeshConfig
from jaxtrain.runtime.progress import track
from jaxtrain.tokenize.chat import render

SAMPLED_TOGETHER = 256
"""Answers sampled in one batch."""


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Which questions are asked, and how answers are sampled."""

    conversations: str
    """Folder of the clean artifact whose questions are asked."""
    prompts: Count = 200
    """Questions asked."""
    answers: Annotated[int, Limits(2)] = 2
    """Answers of a model to a question; those of all models are ranked together."""
    longest_prompt: Count = 256
    """Tokens; longer questions are not asked."""
    max_new: Count = 128
    """Tokens of an answer at most."""
    temperature: float = 1.0
    """Of sampling; 0 takes the likeliest token."""
    seed: int = 0
    """Of answers, display order and the noise of simulated raters."""
    mesh: Operational[MeshConfig] = field(default_factory=MeshConfig)


def answers(config: Asking, folder: str, asked: Sequence[Messages]) -> list[list[Sample]]:
    """`config.answers` of a folder's model to each prompt, in its own template."""
    tokenizer = weights.open(folder).tokenizer
    prompts = [render(messages, tokenizer, generation_prompt=True)[0] for messages in asked]
    rows = [prompt for prompt in prompts for _ in range(config.answers)]
    settings = {name: getattr(config, name) for name in ("temperature", "max_new", "seed")}
    found: list[Sample] = []
    with jax.set_mesh(meshes.make(config.mesh)):
        model = weights.open(folder).load_to_use()
        for first in track(range(0, len(rows), SAMPLED_TOGETHER), "sampling answers"):
            batch = rows[first : first + SAMPLED_TOGETHER]
            ids = sample(
                model,
                [*batch, *[batch[-1]] * (SAMPLED_TOGETHER - len(batch))],  # one shape, one compilation
                seed=config.seed + first,
                max_new=config.max_new,
                stop=tokenizer.end,
                pad=tokenizer.pad,
                prompt_length=config.longest_prompt,
                temperature=config.temperature,
            )
            for row in ids[: len(batch)]:
                text = tokenizer.decode([token for token in row if token != tokenizer.end])
                found.append(Sample(text=text, token_ids=row, checkpoint=folder, sampling=settings))
    return [found[at : at + config.answers] for at in range(0, len(found), config.answers)]
