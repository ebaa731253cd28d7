"""What lies in a folder, as text; the kind of folder decides."""

from pathlib import Path

from jaxtrain.report import incident
from jaxtrain.runtime.errors import UserError


def text(folder: Path) -> str:
    """Of one refused batch, or of a folder of them. Errors: UserError where the folder is something else."""
    if incident.is_incident(folder):
        return incident.text(folder)
    found = sorted(path for path in folder.glob("*") if incident.is_incident(path))
    if not found:
        raise UserError(f"{folder} holds nothing to inspect; name a folder of `incidents`")
    return "\n\n".join(incident.text(path) for path in found)
