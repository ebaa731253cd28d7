"""One run's artifacts and its report, shared by the tests that only read them."""

from pathlib import Path

import pytest
from report_artifacts import write_run

from jaxtrain.report.run import ReportConfig, run


def config_of(at: dict[str, Path], out: Path) -> ReportConfig:
    return ReportConfig(**{name: str(folder) for name, folder in at.items()}, out=str(out))


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_run(tmp_path_factory.mktemp("run") / "runs" / "small")


@pytest.fixture(scope="session")
def report(artifacts: dict[str, Path]) -> Path:
    return run(config_of(artifacts, artifacts["collect"].parent / "10_report"))
