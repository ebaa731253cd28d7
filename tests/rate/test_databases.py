"""Many raters at once, on SQLite and on a PostgreSQL server that the test starts: none lost, none doubled."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxtrain.rate.store import Sample, Store

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) + [
    Path(found) for found in [shutil.which("initdb")] if found
]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a server of this test's own, on a free port of this machine alone.

    Not below pytest's folder: any pytest that starts shuts that to other users, the server's among them.
    """
    if not SERVERS:
        pytest.skip("PostgreSQL's server is not installed (apt-get install postgresql)")
    tools, folder = SERVERS[-1].resolve().parent, Path(tempfile.mkdtemp(prefix="postgres"))
    own: dict[str, str] = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        own = {"user": "postgres"}
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    subprocess.run(
        [tools / "initdb", "-D", folder / "data", "-U", "jaxtrain", "--auth=trust"],
        check=True,
        capture_output=True,
        cwd="/",
        **own,
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    control = [tools / "pg_ctl", "-D", folder / "data", "-l", folder / "log", "-w"]
    subprocess.run([*control, "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/", **own)
    yield f"postgresql+psycopg://jaxtrain@127.0.0.1:{port}/postgres"
    subprocess.run([*control, "-m", "fast", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/", **own)
    shutil.rmtree(folder)


def work_at_once(url: str, raters: int, tasks: int, overlap: int) -> None:
    """All raters judge at once until nothing is left; every task ends with `overlap` judgements."""
    with Store(url) as store:
        for n in range(tasks):
            prompt = store.add_prompt([{"role": "user", "content": f"question {n}"}])
            store.add_task(prompt, [Sample(text="a"), Sample(text="b")], seed=n)
        people = [store.add_rater(f"rater {n}", False) for n in range(raters)]
        together, said = threading.Barrier(raters), Counter[tuple[int, int]]()
        failed: list[BaseException] = []

        def work(rater: int) -> None:
            together.wait()
            try:
                while (task := store.next_task(rater, now=0, overlap=overlap)) is not None:
                    store.judge(task.task, rater, [1, 2], now=0)
                    said[task.task, rater] += 1
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(rater,)) for rater in people]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        found = Counter((c.task, int(c.rater.removeprefix("rater "))) for c in store.comparisons())
        assert len(found) == sum(found.values()) == sum(said.values()) == tasks * overlap
        assert set(Counter(task for task, _ in found).values()) == {overlap}


def test_raters_at_once_on_postgres(postgres):
    work_at_once(postgres, raters=6, tasks=20, overlap=3)


@pytest.mark.slow
def test_twenty_raters_and_five_hundred_judgements_each_on_sqlite(tmp_path):
    work_at_once(f"sqlite:///{tmp_path}/ratings.sqlite", raters=20, tasks=500, overlap=20)


@pytest.mark.slow
def test_twenty_raters_and_five_hundred_judgements_each_on_postgres(postgres):
    base, _ = postgres.rsplit("/", 1)
    with Store(postgres) as store, store._engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("CREATE DATABASE many")
    work_at_once(f"{base}/many", raters=20, tasks=500, overlap=20)
