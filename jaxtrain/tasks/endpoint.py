"""Graders that ask a server: a judge, which reads an answer by a rubric, and a reward model.

    judge = Judge("http://127.0.0.1:8000/v1", "runs/judge", rubric="Is the answer polite and right?")
    Exercise(prompt=question, graders={"judged": judge.grader(question)}, chat=True)

Any server that speaks OpenAI's protocol will do: `jaxtrain serve` for a model on this machine.
"""

import hashlib
import json
import math
import os
import re
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

from jaxtrain.runtime.errors import UserError
from jaxtrain.tasks.graders import Grader

TRIES = 3
BEST = 10
"""Of a judge's scale, which begins at 0."""
_SCORE = re.compile(rf"[^\d-]*(\d+(?:\.\d+)?)\s*(?:(?:/|out of)\s*{BEST})?[^\w/-]*", re.IGNORECASE)


class Judge:
    """A language model that grades by a rubric. An answer is asked once: what it said is kept in a file."""

    def __init__(
        self, url: str, model: str, rubric: str, *, cache: str | Path = "judged.sqlite", key: str = ""
    ):
        """url: up to `/v1`. cache: a SQLite file; it outlives a killed run, and runs may share it. key: the
        environment variable that holds the server's key, where it wants one."""
        self.url, self.model, self.cache, self._key = url.rstrip("/"), model, str(cache), key
        self._asked = (
            f"{rubric}\n\nSay in a few words why, then give a number from 0 (worst) to {BEST} (best), alone "
            "on the last line."
        )
        self._counts: Counter[str] = Counter()
        self._busy: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        with closing(self._open()) as kept, kept:
            kept.execute("CREATE TABLE IF NOT EXISTS judged (asked TEXT PRIMARY KEY, said TEXT NOT NULL)")

    def counts(self) -> dict[str, int]:
        """Answers that the server was asked about, that were known, and that got no number (grade 0)."""
        return {f"judge_{name}": self._counts[name] for name in ("asked", "known", "unread")}

    def grader(self, question: str, reference: str = "") -> Grader:
        """The judge's number for an answer to a question, over its best; reference: a right answer."""
        parts = {"Question": question, "Right answer": reference}
        before = "".join(f"# {name}\n{text}\n\n" for name, text in parts.items() if text)
        return lambda said: self._grade(f"{before}# Answer to grade\n{said}")

    def _grade(self, text: str) -> float:
        roles = (("system", self._asked), ("user", text))
        body = {
            "model": self.model,
            "temperature": 0,
            "messages": [{"role": role, "content": content} for role, content in roles],
        }
        asked = hashlib.sha256(json.dumps([self.url, body]).encode()).hexdigest()
        # the same answer twice in a round waits for itself
        with self._busy[asked], closing(self._open()) as kept:
            row = kept.execute("SELECT said FROM judged WHERE asked = ?", (asked,)).fetchone()
            known = row[0].strip() if row else ""
            said = known or next(filter(None, (self._ask(body) for _ in range(TRIES))), "")
            # nothing said is nothing known: it is asked again the next time
            if said and not known:
                with kept:
                    kept.execute("INSERT OR REPLACE INTO judged VALUES (?, ?)", (asked, said))
        found = _SCORE.fullmatch(said.rsplit("\n", 1)[-1])
        score = float(found[1]) if found else BEST + 1
        self._counts.update({"known" if known else "asked": 1, "unread": score > BEST})
        return score / BEST if score <= BEST else 0.0

    def _ask(self, body: dict[str, Any]) -> str:
        found = post(f"{self.url}/chat/completions", body, os.environ.get(self._key, ""))
        try:
            return (found["choices"][0]["message"]["content"] or "").strip()
        except (LookupError, TypeError, AttributeError):
            raise UserError(f"the judge at {self.url} speaks another protocol than OpenAI's chat") from None

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.cache, timeout=60)


def reward_model(url: str, question: str) -> Grader:
    """σ of the score that a reward model behind `jaxtrain align score` gives to an answer."""

    def grade(said: str) -> float:
        found = post(f"{url.rstrip('/')}/score", {"prompt": question, "completions": [said]})
        return 1 / (1 + math.exp(-found["scores"][0]))

    return grade


def post(url: str, body: dict[str, Any], key: str = "") -> Any:
    """The JSON that a server answers; UserError where it does not, after three tries."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url} is no address of a server; it begins with http:// or https://")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    fault: Exception | None = None
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            fault = error
            error.close()
            if error.code < 500 and error.code != 429:
                break
        except (OSError, ValueError) as error:
            fault = error
        time.sleep(2.0**attempt if attempt + 1 < TRIES else 0)
    raise UserError(f"the server at {url} gives no answer ({fault}); start it, or leave its grader out")
