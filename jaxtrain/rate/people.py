"""People rate: answers of checkpoints into a database, comparisons in and out.

A database of people's work is not an artifact: it grows, and nothing may make it again. `export` turns what
it holds now into one.
"""

import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxtrain import artifact, weights
from jaxtrain.config import Stage
from jaxtrain.feed import prompts as questions
from jaxtrain.formats import preferences as foreign
from jaxtrain.rate import exchange
from jaxtrain.rate.overview import overview
from jaxtrain.rate.sampling import Asking, answers
from jaxtrain.rate.store import Sample, Store
from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Share
from jaxtrain.runtime.progress import say


@dataclass(frozen=True, kw_only=True)
class SampleConfig(Asking):
    """`rate sample`: put questions and the answers of checkpoints into a database, for people to rank.

    Run again with the same seed, it adds only what is missing.
    """

    models: tuple[str, ...]
    """Folders of the models that answer; 2 to 9 answers of all together are ranked, blind."""
    database: str = "ratings.sqlite"
    """File of an SQLite database, or an SQLAlchemy URL such as postgresql+psycopg://user@host/name."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Stage):
    """`rate export`: an artifact of what people have judged so far, as a reward model is trained on."""

    database: str
    """File of an SQLite database, or an SQLAlchemy URL; or a file of comparisons that others have published,
    `.jsonl` or `.jsonl.gz`, in a format of `rate import`."""
    heldout_share: Share = exchange.HELDOUT_SHARE
    """Share of the prompts whose comparisons are kept for evaluation."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """`rate import`: add comparisons of a file: rankings, TRL preferences or hh-rlhf transcripts."""

    file: str
    """`.jsonl` or `.jsonl.gz`."""
    database: str = "ratings.sqlite"
    """File of an SQLite database, or an SQLAlchemy URL."""
    rater: str = "imported"
    """Who judged, where a line does not name its rater."""
    simulated: bool = False
    """Whether that rater is a program, where a line does not say."""
    gold: bool = False
    """Whether the order of the file is known to be right: its rows become gold tasks, which every rater is
    shown and none has judged yet."""


def sample(config: SampleConfig) -> Path:
    """Add one task a question; those that stand from an earlier, interrupted run are left as they are."""
    shown = config.answers * len(config.models)
    if not 2 <= shown <= 9:
        raise UserError(f"answers {config.answers} of {len(config.models)} models: {shown}; show 2 to 9")
    first = weights.open(config.models[0]).tokenizer
    asked = questions.load(config.conversations, first, config.longest_prompt, part=0, parts=2)
    asked = asked[: config.prompts]
    others = distributed.join()
    is_missing = np.zeros(len(asked), bool)
    with ExitStack() as ends:
        store = ends.enter_context(Store(config.database)) if others.is_first else None
        if store is not None:
            for number, prompt in enumerate(asked):
                task = store.add_prompt(prompt.messages), config.seed + number
                is_missing[number] = store.task_of(*task) is None
        missing = np.flatnonzero(distributed.from_first(is_missing)).tolist()
        found: list[list[Sample]] = [[] for _ in missing]
        for model in config.models if missing else ():
            answered = answers(config, model, [asked[number].messages for number in missing])
            found = [shown + more for shown, more in zip(found, answered, strict=True)]
        if store is not None:
            for number, samples in zip(missing, found, strict=True):
                store.add_task(store.add_prompt(asked[number].messages), samples, config.seed + number)
            stood = len(asked) - len(missing)
            say(f"rate sample: {len(missing)} tasks added to {config.database}, {stood} stood")
            say(f"rate sample: `jaxtrain rate serve --database {config.database}` shows them to people")
    others.wait("tasks added")
    return Path(config.database)


def export(config: ExportConfig) -> Path:
    """The rate artifact of what the database holds now; a database that has grown makes it again."""
    if config.database.endswith((".jsonl", ".jsonl.gz")):
        return artifact.produce(config, {"database": config.database}, partial(_export_file, config))
    with Store(config.database) as store:
        counts = store.counts()
        if counts["judgements"] == counts["skipped"]:
            raise UserError(f"{config.database} holds no judgements; have people rate with `rate serve`")
        return artifact.produce(
            config, {}, partial(_export, config, store), fingerprints={"database": store.fingerprint()}
        )


def _export(config: ExportConfig, store: Store, folder: Path) -> dict[str, Any]:
    rows = exchange.export(exchange.rankings(store), folder, config.heldout_share)
    with (folder / "preferences.jsonl").open("w", encoding="utf-8") as lines:
        for row in exchange.preferences(store):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    seen = overview(store)
    # no share of no pairs
    known = {name: value for name, value in seen["agreement"].items() if not math.isnan(value)}
    return {"simulated": seen["simulated"], "agreement": known, **seen["counts"], **rows}


def _export_file(config: ExportConfig, folder: Path) -> dict[str, Any]:
    """A row of the file is a judgement; whether two judged the same answers is not looked for."""
    rows = foreign.read_all(Path(config.database))
    counts = {"prompts": len({exchange.prompt_key(row["prompt"]) for row in rows}), "judgements": len(rows)}
    counts |= {"completions": sum(len(row["ranks"]) for row in rows)}
    counts |= {"raters": len({row["rater"] for row in rows})}
    told = {"simulated": any(row["simulated"] for row in rows), "agreement": {"pairs": 0}}
    return told | counts | exchange.export(rows, folder, config.heldout_share)


def read(config: ImportConfig) -> None:
    """Add the file's comparisons, and say how many and what was left out."""
    with Store(config.database) as store:
        counts = exchange.read(store, config.file, config.rater, config.simulated, config.gold)
    added = counts.pop("added", 0)
    said = "".join(f"; {count} left out: {reason}" for reason, count in sorted(counts.items()))
    say(f"rate import: {added} comparisons added to {config.database}{said}")
