"""Every notebook is stored without outputs; those that a run's artifacts are enough for run here."""

import runpy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from jaxtrain.report.run import ReportConfig, run

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRINTED = {
    "1_quickstart": "How can I make a friend happy?",
    "2_collect_and_clean": "gopher quality     keeps",
    "8_rlhf": "DPO at the reference: 0.693",
    "9_evaluate": "<- right",
}
"""What the output of each that runs here has among its lines."""
write_run = runpy.run_path(str(ROOT / "tests" / "report" / "conftest.py"))["write_run"]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in the formats that the stages write, with its report."""
    folder = tmp_path_factory.mktemp("notebooks") / "runs" / "small"
    write_run(folder)
    run(ReportConfig(run=str(folder), out=str(folder / "10_report")))
    return folder


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells and all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@pytest.mark.slow  # `make site` runs all of them, on a run's artifacts
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in PRINTED], ids=lambda p: p.stem)
def test_a_notebook_runs_and_shows_figures(path: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAXTRAIN_RUN", str(artifacts))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]
    assert len(figures) >= 3
    if path.stem != "2_collect_and_clean":  # the others run no stage, which would say what it does
        assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert PRINTED[path.stem] in printed


def test_simulated_raters_are_called_so():
    assert "simulated rater" in (ROOT / "notebooks" / "1_quickstart.ipynb").read_text(encoding="utf-8")
