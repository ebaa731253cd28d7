"""Comparisons out of the ratings and into them, in the files of `docs/formats.md` and of TRL.

Out: Parquet of rankings in two parts, by prompt; JSON lines of rankings or of preferences.
In: JSON lines of rankings, of TRL's preferences (text or messages) and of hh-rlhf's transcripts.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from jaxtrain import conversation, document
from jaxtrain.rate.store import Comparison, Sample, Store, prompt_key
from jaxtrain.rate.tables import Messages
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

_TURN = re.compile(r"\n\n(Human|Assistant):")


def export(store: Store, path_train: Path, path_heldout: Path, heldout_share: float) -> dict[str, int]:
    """Write both Parquet files of `docs/formats.md`; returns rows of each and the judgements left out.

    heldout_share: expected share of prompts whose comparisons are held out. A prompt's hash decides, so it is
    on the same side in every export, however many ratings are added. Checks of raters are in neither.
    """
    if not 0 <= heldout_share <= 1:
        raise UserError(f"heldout_share is a share between 0 and 1, not {heldout_share}")
    written: Counter[str] = Counter()

    def rows(heldout: bool) -> Iterator[dict[str, Any]]:
        for row in rankings(store):
            if (int(prompt_key(row["prompt"]), 16) < heldout_share * 2**64) == heldout:
                yield row

    written["train"] = document.write_rows(path_train, COLUMNS, rows(heldout=False))
    written["heldout"] = document.write_rows(path_heldout, COLUMNS, rows(heldout=True))
    return {**written, "skipped": store.counts()["skipped"]}


def rankings(store: Store) -> Iterator[dict[str, Any]]:
    """A row a judgement: prompt, completions, completion_ids, ranks, rater, simulated."""
    for comparison in store.comparisons():
        if comparison.gold is None:
            yield {name: getattr(comparison, name) for name in COLUMNS.names}


def preferences(store: Store) -> Iterator[dict[str, Any]]:
    """A row for every two answers of a judgement that are not tied, with TRL's column names.

    `prompt`, `chosen` and `rejected` are messages; `margin` is by how many ranks the chosen one is better.
    """
    for comparison in store.comparisons():
        if comparison.gold is None:
            yield from _pairs(comparison)


def _pairs(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for one, other in combinations(range(len(comparison.ranks)), 2):
        margin = comparison.ranks[other] - comparison.ranks[one]
        if margin:
            better, worse = (one, other) if margin > 0 else (other, one)
            yield {
                "prompt": comparison.prompt,
                "chosen": [{"role": "assistant", "content": comparison.completions[better]}],
                "rejected": [{"role": "assistant", "content": comparison.completions[worse]}],
                "margin": abs(margin),
                "rater": comparison.rater,
                "simulated": comparison.simulated,
            }


def read(store: Store, path: str | Path, rater: str, simulated: bool = False) -> Counter[str]:
    """Add the comparisons of a `.jsonl` or `.jsonl.gz` file; counts `added` rows and others by their reason.

    rater: who judged, where a row does not name its `rater`. Nothing is added where a line is no comparison:
    UserError names it.
    """
    path, found, counts = Path(path), [], Counter[str]()
    if not path.is_file():
        raise UserError(f"no comparisons at {path}")
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                found.append(_parse(row) + (row.get("rater", rater), row.get("simulated", simulated)))
            except _Useless as reason:
                counts[str(reason)] += 1
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                problem = f"{type(error).__name__}: {error}"
                raise UserError(
                    f"{path}, line {number} is no comparison ({problem}); nothing was added"
                ) from error
    for number, (prompt, answers, ranks, name, is_simulated) in enumerate(found):
        by = store.add_rater(name, is_simulated)
        samples = [Sample(text=text, token_ids=ids, checkpoint=path.name) for text, ids in answers]
        task = store.add_task(store.add_prompt(prompt), samples, seed=number)
        store.judge(task, by, store.in_display_order(task, ranks), now=number)
        counts["added"] += 1
    return counts


class _Useless(Exception):
    """A comparison that says nothing; its text is the reason."""


Parsed = tuple[Messages, list[tuple[str, list[int]]], list[int]]


def _parse(row: dict[str, Any]) -> Parsed:
    """Prompt, answers (text, ids) and their ranks."""
    if "ranks" in row:
        texts, ids = row["completions"], row.get("completion_ids") or [[] for _ in row["completions"]]
        ranks = row["ranks"]
        if not 2 <= len(ranks) == len(texts) == len(ids) or set(ranks) != set(range(1, max(ranks) + 1)):
            raise ValueError(f"ranks {ranks} do not order {len(texts)} completions")
        return _asked(_messages(row["prompt"], "user")), list(zip(texts, ids, strict=True)), ranks
    if "prompt" in row:
        prompt = _messages(row["prompt"], "user")
        chosen, rejected = (_content(_messages(row[side], "assistant")) for side in ("chosen", "rejected"))
    else:
        (prompt, chosen), (other, rejected) = _transcript(row["chosen"]), _transcript(row["rejected"])
        if prompt != other:
            raise _Useless("the two conversations part before the last answer")
    if chosen == rejected:
        raise _Useless("both answers are the same")
    return _asked(prompt), [(chosen, []), (rejected, [])], [1, 2]


def _messages(value: str | Messages, role: str) -> Messages:
    """Text is one message of `role`."""
    found = [{"role": role, "content": value}] if isinstance(value, str) else value
    if not found or not all(isinstance(message["content"], str) for message in found):
        raise ValueError("a message without text")
    return [{"role": message["role"], "content": message["content"]} for message in found]


def _asked(prompt: Messages) -> Messages:
    """The prompt, if an answer of the assistant may follow it."""
    if fault := conversation.order_fault([*prompt, {"role": "assistant", "content": ""}]):
        raise _Useless(fault)
    return prompt


def _content(messages: Messages) -> str:
    if len(messages) != 1:
        raise ValueError(f"an answer is one message, not {len(messages)}")
    return messages[0]["content"]


def _transcript(text: str) -> tuple[Messages, str]:
    """hh-rlhf's "\\n\\nHuman: …\\n\\nAssistant: …" as the prompt and the last answer."""
    parts = _TURN.split(text)
    turns = [
        {"role": {"Human": "user", "Assistant": "assistant"}[who], "content": said.strip()}
        for who, said in zip(parts[1::2], parts[2::2], strict=True)
    ]
    if parts[0].strip() or len(turns) < 2 or turns[-1]["role"] != "assistant":
        raise ValueError("a transcript begins with Human and ends with Assistant")
    return turns[:-1], turns[-1]["content"]
