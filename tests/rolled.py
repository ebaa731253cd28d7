"""Answers of the sampler as the dialogues that rollouts are laid out from."""

from collections.abc import Sequence

from jaxtrain.decode.dialogues import Dialogue
from jaxtrain.decode.generate import Completions
from jaxtrain.runtime import mesh as meshes


def dialogues_of(prompts: Sequence[Sequence[int]], answers: Completions) -> list[Dialogue]:
    found = []
    whole = meshes.fetch((answers.tokens_BN, answers.logprobs_BN, answers.mask_BN))
    for prompt, ids, logprobs, mask in zip(prompts, *whole, strict=True):
        count = int(mask.sum())
        found.append(Dialogue(list(prompt), len(prompt)))
        found[-1].add(ids[:count].tolist(), 1, logprobs[:count].tolist())
    return found
