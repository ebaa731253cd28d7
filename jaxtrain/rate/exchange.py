"""Comparisons out of the ratings and into them, in the files of `docs/formats.md` and of TRL.

Out: Parquet of rankings in two parts, by prompt; JSON lines of rankings or of preferences.
In: rankings and preferences of any publisher (formats/preferences.py).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from jaxtrain import conversation, document
from jaxtrain.conversation import Messages
from jaxtrain.formats import preferences as foreign
from jaxtrain.formats.files import Unreadable
from jaxtrain.formats.rows import rows
from jaxtrain.rate.store import Sample, Store, prompt_key
from jaxtrain.runtime.errors import UserError

COLUMNS = pa.schema(
    {
        "prompt": conversation.TURNS,
        "completions": pa.list_(pa.string()),
        "completion_ids": pa.list_(pa.list_(pa.int32())),
        "ranks": pa.list_(pa.int32()),
        "rater": pa.string(),
        "simulated": pa.bool_(),
    }
)


HELDOUT_SHARE = 0.2
"""Of the prompts, unless an export says otherwise."""


def is_heldout(prompt: Messages, share: float = HELDOUT_SHARE) -> bool:
    """By the prompt's hash: on the same side in every export, however many ratings are added."""
    return int(prompt_key(prompt), 16) < share * 2**64


def export(rankings: Iterable[dict[str, Any]], folder: Path, heldout_share: float) -> dict[str, int]:
    """Write `train.parquet` and `heldout.parquet`; returns rows of each.

    heldout_share: expected share of prompts whose comparisons are held out.
    """
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    for row in rankings:
        parts["heldout" if is_heldout(row["prompt"], heldout_share) else "train"].append(row)
    return {name: document.write_rows(folder / f"{name}.parquet", COLUMNS, of) for name, of in parts.items()}


def rankings(store: Store) -> Iterator[dict[str, Any]]:
    """A row a judgement that is no check of a rater: the fields of `COLUMNS`."""
    for comparison in store.comparisons():
        if comparison.gold is None:
            yield {name: getattr(comparison, name) for name in COLUMNS.names}


def preferences(store: Store) -> Iterator[dict[str, Any]]:
    """A row for every two answers of a judgement that are not tied, with TRL's column names.

    `prompt`, `chosen` and `rejected` are messages; `margin` is by how many ranks the chosen one is better.
    """
    for row in rankings(store):
        answers = [[{"role": "assistant", "content": text}] for text in row["completions"]]
        for one, other in combinations(zip(row["ranks"], answers, strict=True), 2):
            (better, chosen), (worse, rejected) = sorted((one, other), key=lambda answer: answer[0])
            if better < worse:
                of = {"chosen": chosen, "rejected": rejected, "margin": worse - better}
                yield {"prompt": row["prompt"], **of, "rater": row["rater"], "simulated": row["simulated"]}


def read(
    store: Store, path: str | Path, rater: str, simulated: bool = False, gold: bool = False
) -> Counter[str]:
    """Add the comparisons of a file (formats/preferences.py); counts `added` rows and others by their reason.

    A row that stands already is not added again: an import that was cut short is finished by the same call.

    rater: who judged, where a row does not name its `rater`. gold: nobody has judged, and the ranks are known
    to be right: raters are shown the answers, and graded by them. Nothing is added where a row is no
    comparison: UserError names it.
    """
    path, found, counts, unread = Path(path), [], Counter[str](), Counter[str]()
    if not path.is_file():
        raise UserError(f"no comparisons at {path}")
    for number, row in enumerate(rows(path, unread, foreign.FIELDS), 1):
        try:
            found.append(foreign.comparison(row))
        except Unreadable as reason:
            counts[str(reason)] += 1
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            problem = f"row {number} is no comparison ({type(error).__name__}: {error})"
            raise UserError(f"{path}: {problem}; nothing was added") from error
    if unread:
        problem = f"{unread.total()} rows are no comparison ({', '.join(unread)})"
        raise UserError(f"{path}: {problem}; nothing was added")
    alike = Counter[str]()
    for number, row in enumerate(found):
        name, known = row["rater"] or rater, row["ranks"] if gold else None
        said = json.dumps([row["completions"], row["ranks"], name, gold])
        # rows that are alike in every word are several judgements, of which each is known by its number
        alike[prompt_key(row["prompt"]) + said] += 1
        again = alike[prompt_key(row["prompt"]) + said]
        seed = int(hashlib.sha256(f"{again} {said}".encode()).hexdigest()[:7], 16)
        prompt = store.add_prompt(row["prompt"])
        task = stood = store.task_of(prompt, seed)
        if task is None:
            answers = zip(row["completions"], row["completion_ids"], strict=True)
            samples = [Sample(text=text, token_ids=ids, checkpoint=path.name) for text, ids in answers]
            task = store.add_task(prompt, samples, seed, gold=known)
        by = None if gold else store.add_rater(name, row["simulated"] or simulated)
        if stood is not None and (by is None or store.has_judged(by, task)):
            counts["stood here already"] += 1
            continue
        if by is not None:
            store.judge(task, by, store.in_display_order(task, row["ranks"], by), now=number)
        counts["added"] += 1
    return counts
