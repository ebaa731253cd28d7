"""A hook of mkdocs: runs the notebooks on the artifacts that JAXTRAIN_RUN names, and publishes the result.

Their files stay without outputs. One that fails ends the build.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page a notebook; two run side by side."""
    paths = sorted(FOLDER.glob("*.ipynb"))
    with ThreadPoolExecutor(2) as together:
        for path, text in zip(paths, together.map(_page, paths), strict=True):
            files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    return files


def _page(path: Path) -> str:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return "\n\n".join(part for cell in notebook.cells for part in _shown(cell))


def _shown(cell: nbformat.NotebookNode) -> Iterator[str]:
    """The cell and its outputs as Markdown."""
    if cell.cell_type == "markdown":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            yield f'<img alt="what the cell draws" src="data:image/png;base64,{data["image/png"].strip()}">'
        elif text := output.get("text", data.get("text/plain", "")).rstrip():
            yield f"```text\n{text}\n```"
