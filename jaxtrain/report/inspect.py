"""`jaxtrain inspect FOLDER`: look into a folder in the terminal. What is in it decides what is shown.

Parquet files of records (collect, clean, rate): counts, samples, searches; of clean also its census: what
each step left, languages, topics, duplicates, and `--signal` before and after. Refused batches (`incidents`
of a training run): their numbers and their documents. A tokenizer without records (a model's folder): what
its chat template writes of a short talk, and which tokens of it are learned.
"""

import random
import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxtrain import artifact
from jaxtrain.conversation import transcript
from jaxtrain.document import read_rows
from jaxtrain.report import census, incident
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import read_object
from jaxtrain.runtime.terminal import visible
from jaxtrain.tokenize.chat import renderings
from jaxtrain.tokenize.tokenizer import FOLDER, SETTINGS, Tokenizer

SHOWN = 600  # characters of a text
CENSUS = "census.json"
BAR = 40  # characters of the longest
ALL_COPIES = 1_000  # of a record that are shown unless --sample says how many
TALK = [
    {"role": "user", "content": "Who wrote Emma?"},
    {"role": "assistant", "content": "Jane Austen."},
    {"role": "user", "content": "When?"},
    {"role": "assistant", "content": "In 1815."},
]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    """Refused batches as text; or filter, sample and search the records of an artifact."""

    folder: str
    """Artifact, or its incidents."""
    part: str = ""
    """documents, conversations, heldout or dropped; empty: all."""
    source: str = ""
    """Only this source."""
    reason: str = ""
    """Only what was dropped for a reason that holds these words."""
    search: str = ""
    """Only texts in which this regular expression is found."""
    id: str = ""
    """Show this record, and the copies of it that were dropped."""
    where: tuple[str, ...] = ()
    """Signals below or above: words<100."""
    sample: int = 0
    """Show so many, drawn by chance; 0: count only."""
    seed: int = 0
    """Of the sample."""
    signal: str = ""
    """Of clean: how this signal is distributed."""


def inspect(options: InspectConfig) -> None:
    """Show refused batches, or counts by file, or the records that the options pick."""
    folder, console = Path(options.folder), Console(highlight=False)
    here_or_below = (*folder.glob("incident.json"), *folder.glob("*/incident.json"))
    if incidents := sorted(file.parent for file in here_or_below):
        console.print(Text(visible("\n\n".join(map(incident.text, incidents)))), soft_wrap=True)
        return
    has_tokenizer = any((folder / name).exists() for name in (FOLDER, SETTINGS))
    if has_tokenizer and not any(folder.rglob("*.parquet")):
        learned(console, Tokenizer.load(folder))
        return
    files = _files(folder, options.part, options.source)
    if options.signal:
        distribution(console, folder, options.signal, options.source)
        return
    if wanted := options.sample or ALL_COPIES * bool(options.id):
        for place, row in sample(files, options, wanted):
            show(console, place, row)
        return
    filtered = options.id or options.reason or options.search or options.where
    counts = []
    for path in files:
        rows = [len(text_of(row)) for row in read_rows(path) if picks(row, options)]
        counts.append((path.parent.name, path.stem, f"{len(rows):,}", f"{sum(rows):,}"))
    _print(console, ("part", "source", "records", "characters"), counts)
    if (folder / CENSUS).is_file() and not filtered:
        overview(console, read_object(folder / CENSUS))


def _files(folder: Path, part: str, source: str) -> list[Path]:
    if artifact.read_manifest(folder) is None:
        raise UserError(f"{folder} holds nothing to inspect; name what a stage wrote, or its `incidents`")
    files = sorted(path for path in folder.rglob("*.parquet") if path.parent != folder or not part)
    files = [path for path in files if part in ("", path.parent.name) and source in ("", path.stem)]
    if not files:
        found = sorted({path.parent.name for path in folder.rglob("*.parquet")})
        raise UserError(f"{folder} has no part {part!r} of source {source!r}; it has {', '.join(found)}")
    return files


def sample(files: list[Path], options: InspectConfig, wanted: int) -> list[tuple[str, Row]]:
    """`wanted` records of those picked, each as likely as any other (reservoir sampling)."""
    rng, kept = random.Random(options.seed), []
    rows = ((path, row) for path in files for row in read_rows(path) if picks(row, options))
    for seen, (path, row) in enumerate(rows, 1):
        if len(kept) < wanted:
            kept.append((f"{path.parent.name}/{path.stem}", row))
        elif (place := rng.randrange(seen)) < wanted:
            kept[place] = (f"{path.parent.name}/{path.stem}", row)
    return kept


def picks(row: Row, options: InspectConfig) -> bool:
    """Whether a record has the id, the reason, the words and the signals that are asked for."""
    if options.id and options.id not in (row.get("id"), row.get("detail")):
        return False
    if options.reason and options.reason not in str(row.get("reason") or ""):
        return False
    if options.search and not re.search(options.search, text_of(row)):
        return False
    return all(_holds(row, condition) for condition in options.where)


def _holds(row: Row, condition: str) -> bool:
    match = re.fullmatch(r"(\w+)\s*([<>])\s*(-?[\d.]+)", condition)
    if match is None or match[1] not in row:
        names = ", ".join(name for name, value in row.items() if isinstance(value, float))
        raise UserError(f"--where {condition!r} is no condition such as words<100; signals here: {names}")
    value = row[match[1]]
    if not isinstance(value, (int, float)):
        return False
    return value < float(match[3]) if match[2] == "<" else value > float(match[3])


def text_of(row: Row) -> str:
    """The text of a record; of a conversation its turns."""
    if "text" in row:
        return row["text"] or ""
    turns = row.get("messages") or row.get("prompt") or []
    return transcript(turns)


def show(console: Console, place: str, row: Row) -> None:
    """One record: where it is from, why it was dropped, its beginning."""
    named = ("id", "url", "language", "license", "reason", "detail")
    head, text = "  ".join(str(row[name]) for name in named if row.get(name)), text_of(row)
    more = f" … {len(text):,} characters" if len(text) > SHOWN else ""
    console.print(Text(visible(f"{place}  {head}"), "bold cyan"), soft_wrap=True)
    console.print(Text(visible(text[:SHOWN]) + more), soft_wrap=True)
    console.print()


def learned(console: Console, tokenizer: Tokenizer) -> None:
    """What is trained on of a talk, in the model's template: several renderings where it rewrites turns."""
    for number, (ids, mask) in enumerate(found := renderings(TALK, tokenizer), 1):
        rows = []
        for is_learned, run in groupby(zip(mask, ids, strict=True), key=lambda one: one[0]):
            part = [index for _, index in run]
            what = "learned" if is_learned else "context"
            rows.append((what, f"{len(part)}", repr(tokenizer.decode(part))))
        _print(console, (f"rendering {number} of {len(found)}", "tokens", "text"), rows)


def overview(console: Console, found: Row) -> None:
    """What each step left, and what was kept, by language, topic and cluster of duplicates."""
    shown = census.gather(found, None)
    rows = [(row["step"], f"{row['records']:,}", f"{row['bytes']:,}") for row in shown["steps"]]
    _print(console, ("what is left", "records", "bytes"), rows)
    for name, labels in (("language", shown["languages"]), *shown["topics"].items()):
        short = [list(row.values()) for row in census.shortened(labels)]
        rows = [(label, *(f"{count:,}" for count in counts)) for label, *counts in short]
        _print(console, (name, "collected", "bytes", "kept", "bytes"), rows)
    rows = [
        (f"{row['size']:,}", of["reason"], ", ".join(row["sources"]), row["id"], row["excerpt"])
        for of in shown["copies"]
        for row in of["largest"]
    ]
    if rows:
        _print(console, ("records", "largest clusters", "from", "kept", "begins"), rows)
    console.print(f"signals, shown with --signal: {', '.join(shown['bins'])}")


def _print(console: Console, heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table()
    for name in heading:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))  # a text may look like rich's markup
    console.print(table)


def distribution(console: Console, folder: Path, signal: str, source: str) -> None:
    """The histogram of a signal: what was kept of each bin (full), and what was not (light)."""
    if not (folder / CENSUS).is_file():
        raise UserError(f"{folder} has no {CENSUS}, so no distributions; name a folder that clean wrote")
    found = read_object(folder / CENSUS)
    if signal not in found["bins"]:
        raise UserError(f"--signal: no signal {signal!r}; there are {', '.join(found['bins'])}")
    edges = found["bins"][signal]
    for name, signals in found["signals"].items():
        if source not in ("", name):
            continue
        before, after = (signals[signal][when] for when in census.WHEN)
        limit = found["limits"][name].get(signal, ())
        ends = " to ".join("…" if end is None else f"{end:g}" for end in limit)
        limits = f", limits {ends}" if limit else ""
        console.print(f"{visible(name)}: {signal}{limits}", markup=False)
        table = Table("from", "collected", "kept", "")
        used = [place for place, count in enumerate(before) if count]
        for place in range(used[0], used[-1] + 1) if used else ():
            bar = "█" * round(BAR * after[place] / max(before))
            bar = bar.ljust(round(BAR * before[place] / max(before)), "░")
            table.add_row(f"{edges[place]:g}", f"{before[place]:,}", f"{after[place]:,}", bar)
        console.print(table)
