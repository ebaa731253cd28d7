"""Answers of a model, as the ratings database takes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import jax

from jaxtrain import weights
from jaxtrain.conversation import Messages
from jaxtrain.decode.answers import answers as decoded
from jaxtrain.fields import Operational
from jaxtrain.rate.store import Sample
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.limits import Count, Limits
from jaxtrain.runtime.mesh import MeshConfig


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
    rows = [messages for messages in asked for _ in range(config.answers)]
    settings = {name: getattr(config, name) for name in ("temperature", "max_new", "seed")}
    found = []
    with jax.set_mesh(meshes.make(config.mesh)):
        model = weights.open(folder).load_to_use()
        for ids in decoded(model, tokenizer, rows, stop=(tokenizer.end,), **settings):
            text = tokenizer.decode([token for token in ids if token != tokenizer.end])
            found.append(Sample(text=text, token_ids=ids, checkpoint=folder, sampling=settings))
    return [found[at : at + config.answers] for at in range(0, len(found), config.answers)]
