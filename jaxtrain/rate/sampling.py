"""Answers of a model, in batches of one shape."""

from jaxtrain import weights
from jaxtrain.decode.generate import sample
from jaxtrain.runtime.progress import track
from jaxtrain.tokenize.tokenizer import Tokenizer

SAMPLED_TOGETHER = 256
"""Answers sampled in one batch."""


def answers(
    folder: str,
    tokenizer: Tokenizer,
    rows: list[list[int]],
    *,
    longest_prompt: int,
    max_new: int,
    temperature: float,
    seed: int,
) -> list[list[int]]:
    """Ids of an answer to each prompt, the stop token in them where it came; on the mesh that is set."""
    model = weights.open(folder).load_to_use()
    found: list[list[int]] = []
    for first in track(range(0, len(rows), SAMPLED_TOGETHER), "sampling answers"):
        batch = rows[first : first + SAMPLED_TOGETHER]
        full = batch + [batch[-1]] * (SAMPLED_TOGETHER - len(batch))  # one shape, one compilation
        ids = sample(
            model,
            full,
            seed=seed + first,
            max_new=max_new,
            stop=tokenizer.end,
            pad=tokenizer.pad,
            prompt_length=longest_prompt,
            temperature=temperature,
        )
        found += ids[: len(batch)]
    return found
