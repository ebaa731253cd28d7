"""The ratings database: prompts, answers, who rates what next, and what they said.

Any SQLAlchemy URL; SQLite in WAL mode needs no server and takes several raters at once. Nothing here reads
a clock: `now` is an argument (seconds since 1970 for people, a count for programs), so a program that
drives the store writes the same rows every time.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np
from sqlalchemy import Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateIndex, CreateTable

from jaxtrain.conversation import Messages
from jaxtrain.rate.tables import Base, Completion, Display, Judgement, Lease, Prompt, Rater, Task, Turn
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.files import says_full


@dataclass(frozen=True, kw_only=True)
class Sample:
    """An answer as it was sampled."""

    text: str
    token_ids: Sequence[int] = ()
    """Empty where no model wrote it."""
    checkpoint: str = ""
    """What wrote it; raters never see it."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Temperature, seed and the like."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a rater is shown: `ranks` go back in the order of `completions`."""

    task: int
    prompt: Messages
    completions: list[str]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One rater's order of the answers to one prompt; lists are in the order in which the rater saw them."""

    task: int
    prompt: Messages
    completions: list[str]
    completion_ids: list[list[int]]
    ranks: list[int]
    """1 = best, equal = tie."""
    rater: str
    simulated: bool
    checkpoints: list[str]
    """What wrote each answer."""
    gold: list[int] | None
    """The ranks known to be right, where this is a check of the rater."""
    all_bad: bool
    milliseconds: int
    completion_rows: list[int]
    """Ids of the answers in the database."""

    @property
    def ranks_by_row(self) -> list[int]:
        """In an order that is the same for all raters of the task."""
        return [self.ranks[place] for place in np.argsort(self.completion_rows)]


class Store:
    """A ratings database. `with Store(url) as store:` closes it, which leaves SQLite a single file."""

    def __init__(self, database: str, durable: bool = False):
        """database: file of an SQLite database, or an SQLAlchemy URL; the tables are made if need be.

        durable: SQLite waits for the disk at each commit, as other databases do: a power cut loses nothing.
        """
        self._queue = threading.Lock()
        url = database if "://" in database else f"sqlite:///{database}"
        try:
            self._engine = create_engine(url)
            if self._engine.dialect.name == "sqlite":
                synchronous = "FULL" if durable else "NORMAL"
                event.listen(self._engine, "connect", partial(_set_up_sqlite, synchronous))
            _make_tables(self._engine)
        except (ArgumentError, NoSuchModuleError, OperationalError, ImportError) as error:
            problem = str(getattr(error, "orig", None) or error).splitlines()[0]
            remedy = "give a URL such as sqlite:///ratings.sqlite"
            if says_full(error):
                remedy = "no space is left: free some, and run the same command again"
            raise UserError(f"cannot open the ratings at {url} ({problem}); {remedy}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """A transaction in which no other writer is active; rolled back where the body raises.

        Threads of one process queue at a lock; several processes take turns at the row.
        """
        with self._queue, Session(self._engine) as session, session.begin():
            session.execute(update(Turn).values(number=Turn.number + 1))
            yield session

    def add_prompt(self, messages: Messages) -> int:
        """The id of a prompt; the same messages have one id."""
        key = prompt_key(messages)
        with self._write() as session:
            known = session.scalar(select(Prompt.id).where(Prompt.key == key))
            return known if known is not None else _add(session, Prompt(key=key, messages=messages))

    def add_rater(self, name: str, simulated: bool) -> int:
        """The id of a rater; UserError where a simulated rater would take a person's name or the reverse."""
        with self._write() as session:
            known = session.scalar(select(Rater).where(Rater.name == name))
            if known is None:
                return _add(session, Rater(name=name, simulated=simulated))
            if known.simulated != simulated:
                kind = "simulated" if known.simulated else "a person"
                raise UserError(f"rater {name!r} is {kind} in these ratings; choose another name")
            return known.id

    def add_task(
        self, prompt: int, samples: Sequence[Sample], seed: int, gold: Sequence[int] | None = None
    ) -> int:
        """Answers to be ranked together, kept in an order that is drawn by `seed`; people see their own.

        gold: the ranks of `samples` that are known to be right; such a task is shown to every rater.
        """
        if len(samples) < 2:
            raise UserError(f"prompt {prompt}: a task compares at least 2 answers, not {len(samples)}")
        with self._write() as session:
            ids = [_add(session, Completion(prompt_id=prompt, **vars(sample))) for sample in samples]
            order = np.random.default_rng(seed).permutation(len(ids))
            shown = None if gold is None else [int(gold[at]) for at in order]
            task = Task(prompt_id=prompt, completion_ids=[ids[at] for at in order], seed=seed, gold=shown)
            return _add(session, task)

    def task_of(self, prompt: int, seed: int) -> int | None:
        """The task that stands with this prompt and seed; None: there is none."""
        with Session(self._engine) as session:
            return session.scalar(select(Task.id).where(Task.prompt_id == prompt, Task.seed == seed).limit(1))

    def has_judged(self, rater: int, task: int) -> bool:
        """Whether this rater has ranked or skipped the task."""
        mine = select(Judgement.id).where(Judgement.task_id == task, Judgement.rater_id == rater)
        with Session(self._engine) as session:
            return session.scalar(mine) is not None

    def fingerprint(self) -> str:
        """sha256 of all comparisons: it changes with every judgement."""
        digest = hashlib.sha256()
        for comparison in self.comparisons():
            said = {k: v for k, v in asdict(comparison).items() if k != "completion_rows"}
            digest.update(json.dumps(said).encode())
        return digest.hexdigest()

    def in_display_order(self, task: int, ranks: Sequence[int], rater: int) -> list[int]:
        """Ranks given in the order of `add_task`'s samples, as `judge` takes them of this rater."""
        with Session(self._engine) as session:
            shown = _order(session, session.get_one(Task, task), rater)
        return [ranks[place] for place in np.argsort(np.argsort(shown))]  # ids rise in the order of samples

    def next_task(
        self, rater: int, now: float, overlap: int = 1, lease_seconds: float = 900.0, gold_every: int = 10
    ) -> Assignment | None:
        """The task that this rater should judge next, leased to them; None where nothing is left for now.

        The one they hold, if the page was reloaded; else the one with the fewest judgements, then the oldest.
        Never one that they have judged or skipped, and never one that has `overlap` judgements, counting the
        leases of others that have not expired. One task in `gold_every` is a gold one while there are any.
        """
        with self._write() as session:
            held = select(Lease).where(Lease.rater_id == rater, Lease.expires > now).limit(1)
            lease = session.scalar(held)
            is_new = lease is None
            if lease is None:
                task = None
                if session.scalar(_count_of(rater)) % gold_every == gold_every // 2:
                    gold = _unseen_by(rater).where(Task.gold.is_not(None))
                    task = session.scalar(gold.order_by(Task.id).limit(1))
                task = task or session.scalar(_open_tasks(rater, now, overlap).limit(1))
                if task is None:
                    return None
                lease = session.merge(Lease(task_id=task, rater_id=rater, expires=0.0))
            lease.expires = now + lease_seconds
            shown = select(Task, Prompt.messages).where(Prompt.id == Task.prompt_id, Task.id == lease.task_id)
            found, messages = session.execute(shown).one()
            texts = _completions(session, found.completion_ids)
            order = _order(session, found, rater, is_new and not session.get_one(Rater, rater).simulated)
            answers = [texts[id].text for id in order]
            return Assignment(task=found.id, prompt=messages, completions=answers)

    def judge(
        self,
        task: int,
        rater: int,
        ranks: Sequence[int],
        *,
        now: float,
        milliseconds: int = 0,
        all_bad: bool = False,
        skip: bool = False,
        reason: str = "",
        assigned: bool = False,
    ) -> None:
        """Record one judgement; UserError where the ranks do not fit or the rater has judged the task before.

        ranks: of each answer in display order: 1 = best, equal = tie, no rank left out; empty with `skip`.
        assigned: refuse a task that was not given to this rater, now or before.
        A judgement that arrives after its lease has expired still counts: people's work is never thrown away.
        """
        ranks = [int(rank) for rank in ranks]
        with self._write() as session:
            found, known = session.get(Task, task), session.get(Rater, rater)
            mine = (Judgement.task_id == task, Judgement.rater_id == rater)
            before = session.scalar(select(Judgement.id).where(*mine))
            if found is None or known is None:
                raise UserError(f"there is no task {task} or no rater {rater} in these ratings")
            if assigned and session.get(Lease, (task, rater)) is None and before is None:
                raise UserError(f"task {task} was not given to rater {rater}")
            if skip != (not ranks):
                raise UserError(f"task {task}: give ranks, or skip, but not both")
            answers, places = len(found.completion_ids), set(range(1, max(ranks, default=0) + 1))
            if ranks and (len(ranks) != answers or set(ranks) != places):
                wrong = f"task {task}: ranks {ranks} do not order {answers} answers"
                raise UserError(f"{wrong}; 1 is best, equal ranks tie, and no rank is left out")
            if before is not None:
                raise UserError(f"rater {rater} has judged task {task} before; a judgement stands")
            said = {"ranks": ranks, "all_bad": all_bad, "skipped": skip, "reason": reason}
            when = {"milliseconds": milliseconds, "created": now}
            session.add(Judgement(task_id=task, rater_id=rater, **said, **when))
            found.judged += not skip
            session.execute(delete(Lease).where(Lease.task_id == task, Lease.rater_id == rater))

    def undo(self, rater: int, now: float, lease_seconds: float = 900.0) -> list[int] | None:
        """Withdraw this rater's last judgement or skip: its task is theirs again; its ranks, or None."""
        with self._write() as session:
            last = select(Judgement).where(Judgement.rater_id == rater).order_by(Judgement.id.desc()).limit(1)
            judgement = session.scalar(last)
            if judgement is None:
                return None
            session.execute(delete(Lease).where(Lease.rater_id == rater))
            session.add(Lease(task_id=judgement.task_id, rater_id=rater, expires=now + lease_seconds))
            session.get_one(Task, judgement.task_id).judged -= not judgement.skipped
            session.delete(judgement)
            return judgement.ranks

    def progress(self, rater: int, now: float, overlap: int = 1) -> tuple[int, int]:
        """How many tasks this rater has done (judged or skipped), and how many could be given now."""
        with Session(self._engine) as session:
            open_tasks = select(func.count()).select_from(_open_tasks(rater, now, overlap).subquery())
            return session.scalar(_count_of(rater)) or 0, session.scalar(open_tasks) or 0

    def comparisons(self) -> Iterator[Comparison]:
        """Every judgement that was not skipped, by task and then by rater's name."""
        rows = (
            select(Judgement, Task, Prompt, Rater, Display)
            .join(Task, Judgement.task_id == Task.id)
            .join(Prompt, Task.prompt_id == Prompt.id)
            .join(Rater, Judgement.rater_id == Rater.id)
            .outerjoin(Display, (Display.task_id == Task.id) & (Display.rater_id == Rater.id))
            .where(~Judgement.skipped)
            .order_by(Task.id, Rater.name)
        )
        with Session(self._engine) as session:
            for part in session.execute(rows).partitions(256):
                known = _completions(session, [id for row in part for id in row[1].completion_ids])
                for judgement, task, prompt, rater, display in part:
                    order = display.completion_ids if display else task.completion_ids
                    shown = [known[id] for id in order]
                    gold = task.gold and [task.gold[task.completion_ids.index(id)] for id in order]
                    yield Comparison(
                        task=task.id,
                        prompt=prompt.messages,
                        completions=[completion.text for completion in shown],
                        completion_ids=[completion.token_ids for completion in shown],
                        ranks=judgement.ranks,
                        rater=rater.name,
                        simulated=rater.simulated,
                        checkpoints=[completion.checkpoint for completion in shown],
                        gold=gold,
                        all_bad=judgement.all_bad,
                        milliseconds=judgement.milliseconds,
                        completion_rows=order,
                    )

    def counts(self) -> dict[str, int]:
        """Rows of each kind."""
        tables = {"prompts": Prompt, "completions": Completion, "tasks": Task, "raters": Rater}
        with Session(self._engine) as session:
            rows = {name: select(func.count()).select_from(table) for name, table in tables.items()}
            rows["judgements"] = select(func.count()).select_from(Judgement)
            rows["skipped"] = rows["judgements"].where(Judgement.skipped)
            rows["all_bad"] = rows["judgements"].where(Judgement.all_bad)
            return {name: session.scalar(query) or 0 for name, query in rows.items()}


def prompt_key(messages: Messages) -> str:
    """16 hex digits of a prompt's roles and contents."""
    plain = json.dumps([[message["role"], message["content"]] for message in messages], ensure_ascii=False)
    return hashlib.blake2b(plain.encode(), digest_size=8).hexdigest()


def _unseen_by(rater: int) -> Any:
    """The tasks that a rater has neither judged nor skipped."""
    mine = select(Judgement.id).where(Judgement.task_id == Task.id, Judgement.rater_id == rater)
    return select(Task.id).where(~mine.exists())


def _open_tasks(rater: int, now: float, overlap: int) -> Any:
    others = (Lease.task_id == Task.id, Lease.rater_id != rater, Lease.expires > now)
    leased = select(func.count()).where(*others)
    unjudged = _unseen_by(rater).where(Task.gold.is_(None), Task.judged < overlap)
    open_tasks = unjudged.where(Task.judged + leased.scalar_subquery() < overlap)
    return open_tasks.order_by(Task.judged, Task.id)


def _order(session: Session, task: Task, rater: int, draw: bool = False) -> list[int]:
    """Ids of a task's answers as this rater sees them. draw: one of their own, if they have seen none yet,
    so that what comes first does not sway all raters alike."""
    own = session.get(Display, (task.id, rater))
    if own is None and draw:
        order = np.random.default_rng([task.seed, rater]).permutation(task.completion_ids).tolist()
        session.add(own := Display(task_id=task.id, rater_id=rater, completion_ids=order))
    return (own or task).completion_ids


def _count_of(rater: int) -> Any:
    return select(func.count()).select_from(Judgement).where(Judgement.rater_id == rater)


def _completions(session: Session, ids: list[int]) -> dict[int, Completion]:
    return {row.id: row for row in session.scalars(select(Completion).where(Completion.id.in_(ids)))}


def _add(session: Session, row: Any) -> int:
    session.add(row)
    session.flush()
    return row.id


def _make_tables(engine: Engine) -> None:
    """Make what is missing; several processes may do so at once."""
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.execute(CreateIndex(index, if_not_exists=True))
    with suppress(IntegrityError), engine.begin() as connection:  # it is there: made earlier
        connection.execute(insert(Turn).values(id=1, number=0))


def _set_up_sqlite(synchronous: str, connection: Any, _: Any) -> None:
    for pragma in ("busy_timeout=10000", "journal_mode=WAL", "foreign_keys=ON", f"synchronous={synchronous}"):
        connection.execute(f"PRAGMA {pragma}")
