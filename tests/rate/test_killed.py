"""`kill -9` of the rating server while people rate: what it said it has, it has, once and unchanged."""

import os
import random
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from jaxtrain.rate.store import Sample, Store

ROOT = Path(__file__).parents[2]
Judged = tuple[int, str, list[int]]
"""A task, the rater's name, and the ranks in display order."""


class Server:
    """`jaxtrain rate serve` on one port, killed and started again; its key stays, so links and cookies do."""

    def __init__(self, folder: Path, names: list[str], overlap: int) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"http://127.0.0.1:{probe.getsockname()[1]}"
        place = ["--database", str(folder / "ratings.sqlite"), "--secret_file", str(folder / "key")]
        asked = ["--port", self.address.rsplit(":", 1)[1], "--overlap", str(overlap), "--invite", *names]
        self.command = [sys.executable, "-m", "jaxtrain", "rate", "serve", *place, *asked]
        self.names, self.is_up, self.links = names, Event(), dict[str, str]()
        self.start()

    def start(self) -> None:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.match(r"\s+(\w+)\s+(http://\S+/invite/\S+)", line):
                self.links[found[1]] = found[2]
                if found[1] == self.names[-1]:
                    self.is_up.set()
                    return
        raise AssertionError("the server ended before it served")

    def kill(self) -> None:
        self.is_up.clear()
        self.process.kill()
        self.process.communicate()


def rate(server: Server, name: str, said: SimpleQueue[Judged]) -> None:
    """Judge until nothing is left; what the server did not answer for is asked again."""
    drawn, cookies = random.Random(name), HTTPCookieProcessor()
    browser = build_opener(cookies)
    while True:
        server.is_up.wait()
        try:
            page = browser.open(server.address if len(cookies.cookiejar) else server.links[name])
            text = page.read().decode()
            task, token = (re.search(rf'name="{of}" value="([^"]+)"', text) for of in ("task", "csrf"))
            if task is None or token is None:
                assert "Nothing left" in text
                return
            ranks = drawn.choice(([1, 2], [2, 1], [1, 1]))
            form = {"csrf": token[1], "task": task[1], "milliseconds": "900"}
            form |= {f"rank_{place}": str(rank) for place, rank in enumerate(ranks)}
            browser.open(f"{server.address}/judge", urlencode(form).encode()).read()
        except HTTPError as refused:
            assert refused.code == 409, "it had recorded the judgement, and was killed before it said so"
        except (OSError, HTTPException):
            continue
        else:
            said.put((int(task[1]), name, ranks))


@pytest.mark.parametrize(
    ("raters", "tasks", "kills"), [(4, 12, 1), pytest.param(20, 500, 8, marks=pytest.mark.slow)]
)
def test_no_judgement_is_lost_doubled_or_changed(tmp_path: Path, raters: int, tasks: int, kills: int) -> None:
    names, said = [f"rater{number}" for number in range(raters)], SimpleQueue[Judged]()
    with Store(f"sqlite:///{tmp_path / 'ratings.sqlite'}") as store:
        for number in range(tasks):
            prompt = store.add_prompt([{"role": "user", "content": f"Question {number}?"}])
            store.add_task(prompt, [Sample(text="One."), Sample(text="Two.")], seed=number)
    server, acknowledged = Server(tmp_path, names, overlap=raters), list[Judged]()
    with ThreadPoolExecutor(raters) as people:
        at_work = [people.submit(rate, server, name, said) for name in names]
        for _ in range(kills):
            acknowledged += [said.get(timeout=120) for _ in range(raters * tasks // (kills + 1))]
            server.kill()
            server.start()
        for one in at_work:
            one.result()
    server.kill()
    acknowledged += [said.get() for _ in range(said.qsize())]
    with Store(f"sqlite:///{tmp_path / 'ratings.sqlite'}") as store:
        found = [(of.task, of.rater, of.ranks) for of in store.comparisons()]
        assert len(found) == store.counts()["judgements"] == raters * tasks, "each task once by each rater"
    recorded = {(task, rater): ranks for task, rater, ranks in found}
    assert all(recorded[task, rater] == ranks for task, rater, ranks in acknowledged)
    assert len(acknowledged) >= raters * (tasks - kills)
