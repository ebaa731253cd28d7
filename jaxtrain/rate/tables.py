"""The tables of the ratings database."""

from typing import Any

from sqlalchemy import JSON, ForeignKey, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Messages = list[dict[str, str]]


class Base(DeclarativeBase):
    type_annotation_map = {
        list[int]: JSON,
        list[int] | None: JSON(none_as_null=True),
        Messages: JSON,
        dict[str, Any]: JSON,
    }


class Turn(Base):
    """One row. Every writer updates it first, so that writers take turns on every kind of database."""

    __tablename__ = "turn"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]


class Prompt(Base):
    __tablename__ = "prompt"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(unique=True)  # hash of messages
    messages: Mapped[Messages]


class Completion(Base):
    __tablename__ = "completion"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"), index=True)
    text: Mapped[str]
    token_ids: Mapped[list[int]]
    checkpoint: Mapped[str]
    sampling: Mapped[dict[str, Any]]


class Task(Base):
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(ForeignKey("prompt.id"))
    completion_ids: Mapped[list[int]]  # in an order drawn by `seed`
    seed: Mapped[int]
    gold: Mapped[list[int] | None]  # ranks known to be right, in that order: shown to every rater
    judged: Mapped[int] = mapped_column(default=0, index=True)  # judgements that were not skipped


class Rater(Base):
    __tablename__ = "rater"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    simulated: Mapped[bool]


class Lease(Base):
    """A rater is looking at a task; it counts as a judgement to come until it expires."""

    __tablename__ = "lease"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"), primary_key=True, index=True)
    expires: Mapped[float]


class Display(Base):
    """The order in which a person is shown a task's answers; without a row it is the task's own."""

    __tablename__ = "display"
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"), primary_key=True)
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"), primary_key=True)
    completion_ids: Mapped[list[int]]


class Judgement(Base):
    __tablename__ = "judgement"
    __table_args__ = (UniqueConstraint("task_id", "rater_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("task.id"))
    rater_id: Mapped[int] = mapped_column(ForeignKey("rater.id"))
    ranks: Mapped[list[int]]  # in the order in which this rater saw the answers; empty where skipped
    all_bad: Mapped[bool]
    skipped: Mapped[bool]
    reason: Mapped[str]
    milliseconds: Mapped[int]  # from display to judgement
    created: Mapped[float]
