"""People rate: answers of checkpoints into a database, the page that shows them, comparisons in and out.

A database of people's work is not an artifact: it grows, and nothing may make it again. `export` turns what
it holds now into one.
"""

import json
import math
import os
import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np

from jaxtrain import artifact, weights
from jaxtrain.config import Stage
from jaxtrain.feed import prompts as questions
from jaxtrain.rate import exchange
from jaxtrain.rate.overview import overview
from jaxtrain.rate.sampling import Asking, answers
from jaxtrain.rate.store import Sample, Store
from jaxtrain.runtime import distributed
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.limits import Count, Share
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
class ServeConfig:
    """`rate serve`: open the rating page on a database."""

    database: str = "ratings.sqlite"
    """File of an SQLite database, or an SQLAlchemy URL."""
    host: str = "127.0.0.1"
    """Address to listen on: only this machine, unless you say otherwise. Put TLS in front of any other."""
    port: int = 8000
    """TCP port; 0: a free one."""
    address: str = ""
    """Where people reach the page, such as https://rate.example.org: links begin with it, and cookies then
    travel over https alone. Empty: the address that it listens on."""
    overlap: Count = 1
    """Judgements wanted for each task, by different raters."""
    gold_every: int = 10
    """One task in so many is one whose right order is known, while there are any."""
    lease_minutes: float = 15.0
    """How long a task is kept for the rater who looks at it."""
    instructions: str = ""
    """Markdown file for raters: its first line is the question above every task, the rest what counts."""
    invite: tuple[str, ...] = ()
    """Names of raters whose links are printed at the start."""
    secret_file: str = "ratings.key"
    """File with the key that signs links and cookies; made if it is missing. Delete it to void all links."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Stage):
    """`rate export`: an artifact of what people have judged so far, as a reward model is trained on."""

    VERSION: ClassVar[int] = 1

    database: str
    """File of an SQLite database, or an SQLAlchemy URL."""
    heldout_share: Share = 0.2
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


def url(database: str) -> str:
    """The SQLAlchemy URL of a file or URL."""
    return database if "://" in database else f"sqlite:///{database}"


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
        store = ends.enter_context(Store(url(config.database))) if others.is_first else None
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


def serve(config: ServeConfig) -> None:
    """Serve until interrupted; prints the administrator's link and those of the raters named."""
    import uvicorn

    from jaxtrain.rate.app import INSTRUCTIONS, RatingApp
    from jaxtrain.runtime import web

    parts = urlsplit(config.address)
    if config.address and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise UserError(f"address is {config.address!r}; give one such as https://rate.example.org")
    given = Path(config.instructions)
    if config.instructions and not given.is_file():
        raise UserError(f"instructions: there is no file {given}; write what raters are to look at into it")
    opened = Store(url(config.database), durable=True)
    with opened as store, web.listen(config.host, config.port) as listening:
        app = RatingApp(
            store,
            _secret(Path(config.secret_file)),
            overlap=config.overlap,
            lease_seconds=60 * config.lease_minutes,
            gold_every=config.gold_every,
            instructions=given.read_text(encoding="utf-8") if config.instructions else INSTRUCTIONS,
            address=config.address or f"http://{config.host}:{listening.getsockname()[1]}",
        )
        counts = store.counts()
        say(f"rate serve: {counts['tasks']} tasks, {counts['judgements']} judgements in {config.database}")
        say(f"  administrator  {app.admin_link()}")
        for name in config.invite:
            say(f"  {name:<13}  {app.invite_link(name)}")
        uvicorn.Server(web.settings(app.asgi)).run(sockets=[listening])


def _secret(file: Path) -> str:
    """The key in `file`, which only its owner can read; made if it is missing."""
    if not file.is_file():
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(32) + "\n")
    key = file.read_text().strip()
    if len(key) < 32:
        raise UserError(f"{file} holds no key of at least 32 characters; delete it to have one made")
    return key


def export(config: ExportConfig) -> Path:
    """The rate artifact of what the database holds now; a database that has grown makes it again."""
    with Store(url(config.database)) as store:
        counts = store.counts()
        if counts["judgements"] == counts["skipped"]:
            raise UserError(f"{config.database} holds no judgements; have people rate with `rate serve`")
        return artifact.produce(
            config, {}, partial(_export, config, store), fingerprints={"database": store.fingerprint()}
        )


def _export(config: ExportConfig, store: Store, folder: Path) -> dict[str, Any]:
    rows = exchange.export(store, folder, config.heldout_share)
    with (folder / "preferences.jsonl").open("w", encoding="utf-8") as lines:
        for row in exchange.preferences(store):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
    seen = overview(store)
    # no share of no pairs
    known = {name: value for name, value in seen["agreement"].items() if not math.isnan(value)}
    return {"simulated": seen["simulated"], "agreement": known, **seen["counts"], **rows}


def read(config: ImportConfig) -> None:
    """Add the file's comparisons, and say how many and what was left out."""
    with Store(url(config.database)) as store:
        counts = exchange.read(store, config.file, config.rater, config.simulated, config.gold)
    added = counts.pop("added", 0)
    said = "".join(f"; {count} left out: {reason}" for reason, count in sorted(counts.items()))
    say(f"rate import: {added} comparisons added to {config.database}{said}")
