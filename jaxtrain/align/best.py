"""Best of n: several answers to each item of a task, of which the best are conversations to fine-tune on.

Rejection sampling as in Llama 2 (Touvron et al. 2023, arXiv:2307.09288, section 3.2.3). Held-out items say by
how much the best of n beats one answer.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np

from jaxtrain import weights
from jaxtrain.align.practice import Asked, Practice, PracticeConfig, read
from jaxtrain.align.rollout import Sampler
from jaxtrain.decode.dialogues import Dialogue, Played
from jaxtrain.feed.shuffle import key
from jaxtrain.runtime import mesh as meshes
from jaxtrain.runtime.compiled import keep_compiled
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Limits, Signed
from jaxtrain.runtime.progress import say, track
from jaxtrain.tasks.environment import described
from jaxtrain.tasks.interval import Z95

AT_ONCE = 64
"""Items whose answers are drawn together."""


@dataclass(frozen=True, kw_only=True)
class BestConfig(PracticeConfig):
    """`align best`: keep the best of several answers to each item of a task, to fine-tune on."""

    task: str
    """A task's name, or the .py file that defines one."""
    n: Annotated[int, Limits(2)] = 8
    """Answers to an item."""
    items: Count = 1000
    """Items to practise that are answered, at most."""
    least: Signed = 1.0
    """Reward that the best answer needs; else the item gives no conversation, and is counted."""
    measured: Annotated[int, Limits(2)] = 256
    seed: int = 0
    """Of what is sampled; the same seed gives the same answers."""
    mesh: meshes.MeshConfig = meshes.MeshConfig()


def best(config: BestConfig) -> Path:
    """The folder written: `conversations.jsonl` for a ChatSource of collect, and `best.json`.

    best.json: of held-out items the mean grade of one answer (`one`) and of the best of n (`best`), the mean
    difference (`gain`) with its 95 % interval (`low`, `high`; items are the unit); what was `kept`, `too_bad`
    and `too_long` of the items to practise; and how many answers to them were `cut` before they ended.
    """
    out, source = Path(config.out), weights.open(config.model)
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    keep_compiled()
    sampler = config.sampler(source.tokenizer, source.config)
    (practice,) = read(config, [config.task], source.tokenizer, [0])
    with jax.set_mesh(meshes.make(config.mesh)):
        model = source.load_to_use("model")
        measured = _answered(config, sampler, model, practice, practice.heldout, "measured")
        asked = practice.practised[: config.items]
        dialogues, worth_IN, _ = _answered(config, sampler, model, practice, asked, "practised")
    _, chosen_IN, grade_IN = measured
    gain_I = grade_IN[np.arange(len(grade_IN)), chosen_IN.argmax(axis=1)] - grade_IN.mean(axis=1)
    half = Z95 * float(gain_I.std(ddof=1)) / len(gain_I) ** 0.5
    kept = [
        (item, row[worth.argmax()])
        for (item, _), row, worth in zip(asked, dialogues, worth_IN, strict=True)
        if worth.max() >= config.least
    ]
    gain, cut = float(gain_I.mean()), int(np.isneginf(worth_IN).sum())
    found = {
        "task": practice.task.name,
        "n": config.n,
        "one": float(grade_IN.mean()),
        "best": float(grade_IN.mean()) + gain,
        **{"gain": gain, "low": gain - half, "high": gain + half, "measured": len(gain_I)},
        **{"kept": len(kept), "too_bad": len(asked) - len(kept), "too_long": practice.left_out, "cut": cut},
    }
    if jax.process_index() == 0:
        _write(out, kept, found)
    say(
        f"best of {config.n}: {found['best']:.3f} against {found['one']:.3f} of one answer (gain {gain:.3f}, "
        f"95 % {gain - half:.3f} to {gain + half:.3f}); {len(kept)} of {len(asked)} items gave a "
        f"conversation ({cut} of {worth_IN.size} answers did not end)"
    )
    return out


def _answered(
    config: BestConfig, sampler: Sampler, model: Any, practice: Practice, asked: list[Asked], what: str
) -> tuple[list[list[Dialogue]], np.ndarray, np.ndarray]:
    """n dialogues of each item, what they are paid (−∞: they did not end), and their grade; [items, n]."""
    dialogues: list[Dialogue] = []
    paid, grades = [], []
    for first in track(range(0, len(asked), AT_ONCE), what):
        each = [one for one in asked[first : first + AT_ONCE] for _ in range(config.n)]
        items, openings = zip(*each, strict=True)
        played = sampler.play(model, items, openings, key(config.seed, what, first))
        found = practice.judged(each, played)
        dialogues += played
        ended = [_is_ended(one, sampler.tokenizer.end) for one in played]
        paid.append(np.where(ended, found["paid"], -np.inf))
        grades.append(found[practice.task.metric])
    rows = [dialogues[at : at + config.n] for at in range(0, len(dialogues), config.n)]
    paid_IN, grade_IN = (np.concatenate(parts).reshape(-1, config.n) for parts in (paid, grades))
    return rows, paid_IN, grade_IN


def _is_ended(one: Dialogue, end: int) -> bool:
    """Whether it ended by itself, and every answer in it too: else it teaches to stop in the middle."""
    answers = zip(one.ids[one.opening :], one.mask, strict=True)
    return one.reason == "done" and sum(token == end for token, sampled in answers if sampled) == one.turns


def _write(out: Path, kept: list[tuple[Played, Dialogue]], found: dict[str, Any]) -> None:
    temporary = out.with_name(f"{out.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with (temporary / "conversations.jsonl").open("w", encoding="utf-8") as file:
        for item, one in kept:
            tools = {"tools": [*map(described, item.tools)]} if item.tools else {}
            file.write(json.dumps({"messages": one.messages, **tools}, ensure_ascii=False) + "\n")
    (temporary / "best.json").write_text(json.dumps(found, indent=2) + "\n")
    temporary.rename(out)
