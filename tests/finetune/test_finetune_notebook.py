"""The notebook on fine-tuning runs from start to end on a small run's artifacts."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_notebook_runs_and_shows_figures(tokens, pretrained, tmp_path, monkeypatch):
    for name, folder in (("3_tokenize", tokens), ("4_pretrain", pretrained)):
        (tmp_path / name).symlink_to(folder)
    monkeypatch.setenv("JAXTRAIN_RUN", str(tmp_path))
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    path = ROOT / "notebooks" / "5_finetune.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    figures = [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert len(figures) == 3
    assert "<|end|>]" in printed and "weights learnt beside" in printed and "['length']" not in printed
