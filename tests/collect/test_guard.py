"""No record costs more than itself: the process that reads is ended, and another goes on behind the place."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from jaxtrain import config as configs
from jaxtrain.clean import C4, judge
from jaxtrain.clean.personal import redact
from jaxtrain.collect import guard
from jaxtrain.collect.run import CollectConfig, run
from jaxtrain.collect.source import Item, Source, Step
from jaxtrain.collect.wiki import REDIRECT, article_text
from jaxtrain.document import Document, read_records, record_id
from jaxtrain.formats.files import Unread
from jaxtrain.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Trap(Source):
    """Records, some of which do what no record should."""

    does: tuple[str, ...]
    """What each record does to its reader."""
    end: str = ""
    """What the source does behind its last record."""

    def read(self, unread: Unread) -> Iterator[Item]:
        for number, what in enumerate(self.does):
            unread["looked at"] += 1
            yield Step(f"record {number}", partial(self._record, number, what))
        if self.end:
            self._record(0, self.end)

    def _record(self, number: int, what: str) -> list[Document]:
        match what:
            case "hangs":
                while True:
                    pass
            case "raises":
                raise KeyError(what)
            case "crashes":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "swells":
                bytearray(guard.MEMORY + 10**9)
            case "surrogate":
                what = "\ud800"
        return [Document(id=record_id(self.name, str(number)), text=f"{number} {what}", source=self.name)]


def test_what_hangs_swells_raises_or_crashes_costs_itself_alone(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 1)
    does = ("is well", "hangs", "is well", "raises", "crashes", "swells", "surrogate", "is well")
    source, verdicts, saved = Trap(name="t", does=does), {}, []
    unread = Counter()
    found = list(guard.read(source, unread, verdicts, lambda: saved.append(dict(verdicts))))
    assert [d.text for d in found] == ["0 is well", "2 is well", "7 is well"]
    assert unread == {
        "looked at": 8,
        "record 1: took more than 1 s of processor time for a megabyte": 1,
        "record 3 cannot be read: KeyError": 1,
        "record 4: ended its reader with SIGSEGV": 1,
        "record 5 needs more memory than 2 GB": 1,
        "half of a surrogate pair, which is no text": 1,
    }
    assert [len(v) for v in saved] == [1, 2]
    # On a faster machine, or a slower one, what was once judged stays judged.
    monkeypatch.setattr(guard, "SECONDS", 1000)
    again = Counter()
    assert list(guard.read(source, again, verdicts, lambda: saved.append({}))) == found
    assert again == unread and len(saved) == 2


def test_what_hangs_between_records_ends_the_source_but_keeps_what_was_read(monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 1)
    unread = Counter()
    assert len(list(guard.read(Trap(name="t", does=("is well",), end="hangs"), unread))) == 1
    assert unread == {"looked at": 1, "behind 1: took more than 1 s of processor time for a megabyte": 1}


def test_a_reader_that_is_ended_from_outside_is_no_verdict():
    @dataclass(frozen=True, kw_only=True)
    class Killed(Source):
        def read(self, unread: Unread) -> Iterator[Item]:
            os.kill(os.getpid(), signal.SIGKILL)
            yield None

    with pytest.raises(UserError, match="source 'k' was ended from outside"):
        list(guard.read(Killed(name="k"), Counter()))


def test_a_stage_that_was_killed_keeps_to_its_verdicts(tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "SECONDS", 1)
    config = CollectConfig(sources=(Trap(name="t", does=("is well", "hangs")),), out=str(tmp_path / "out"))

    def interrupted(message: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxtrain.collect.run.say", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(config)
    monkeypatch.undo()
    monkeypatch.setattr(guard, "SECONDS", 10**6)
    out = run(config)
    assert len(list(read_records(out / "documents/t.parquet", Document))) == 1
    assert json.loads((out / "verdicts.json").read_text())["t"].keys() == {"2"}
    assert sum(json.loads((out / "unread.json").read_text())["t"].values()) == 3


OWN = """
from dataclasses import dataclass
from jaxtrain.collect.run import CollectConfig
from jaxtrain.collect.source import FileSource
from jaxtrain.document import Document, record_id

@dataclass(frozen=True, kw_only=True)
class Mail(FileSource):
    def read_file(self, path, unread):
        for number, text in enumerate(path.read_text().split("\\n\\n")):
            yield Document(id=record_id(self.name, str(number)), text=text, source=self.name)

config = CollectConfig(sources=(Mail(name="mail", paths=("mail.txt",)),), out="out")
"""


def test_a_source_of_ones_own_in_the_config_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mail.txt").write_text("Dear Ada,\n\nyours, Charles")
    Path("1_collect.py").write_text(OWN)
    out = run(configs.load("1_collect.py"))
    assert [d.text for d in read_records(out / "documents/mail.parquet", Document)] == [
        "Dear Ada,",
        "yours, Charles",
    ]
    Path("1_collect.py").write_text(OWN.replace("text=text", "text=text.upper()"))
    out = run(configs.load("1_collect.py"))
    texts = [d.text for d in read_records(out / "documents/mail.parquet", Document)]
    assert texts == ["DEAR ADA,", "YOURS, CHARLES"], "a source that was changed is read again"


@pytest.mark.parametrize(
    ("work", "text"),
    [
        (lambda text: judge(text, C4()), "." * 200_000 + "a"),
        (lambda text: judge(text, C4(), language="de"), "!" * 200_000 + "a"),
        (redact, "-----BEGIN PRIVATE KEY-----\n" + "Ab: " * 40_000),
        (redact, "-eyJ" * 100_000),
        (REDIRECT.match, "#a" + " " * 300_000),
        (lambda text: article_text(text, set()), "''':" * 100_000),
        (lambda text: article_text(text, set()), "A sentence. (" + "{{x}} " * 20_000),
    ],
)
def test_no_pattern_takes_the_square_of_a_text(monkeypatch, work, text):
    @dataclass(frozen=True, kw_only=True)
    class Worked(Source):
        def read(self, unread: Unread) -> Iterator[Item]:
            yield Step("text", lambda: [self.document("text", str(bool(work(text))))])

    monkeypatch.setattr(guard, "SECONDS", 5)
    unread = Counter()
    assert len(list(guard.read(Worked(name="w"), unread))) == 1 and not unread
