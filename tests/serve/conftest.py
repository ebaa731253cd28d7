"""The parrot and the rambler, engines around them and servers around those."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from parrot import make_engine, serving, write_model, write_rambler

from jaxtrain.serve.app import ServeApp
from jaxtrain.serve.engine import Engine


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("served") / "parrot"
    write_model(found)
    return found


@pytest.fixture(scope="package")
def engine(folder: Path) -> Engine:
    """Two rows; three requests may wait."""
    return make_engine(folder, rows=2, queue=3)


@pytest.fixture(scope="package")
def address(engine: Engine) -> Iterator[str]:
    """Of a server around `engine`, without a key."""
    with serving(ServeApp(engine)) as found:
        yield found


@pytest.fixture(scope="package")
def rambler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Engine]]:
    """A server whose answers go on for a second or more, two rows, three may wait; and its engine."""
    found = tmp_path_factory.mktemp("served") / "rambler"
    write_rambler(found)
    engine = make_engine(found, rows=2, queue=3)
    engine.warm_up()
    with serving(ServeApp(engine)) as at:
        yield at, engine
