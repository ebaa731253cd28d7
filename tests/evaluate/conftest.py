"""The artifacts of configs/tiny, and a tiny model."""

from tiny_model import config, draw, make_mesh
from tiny_run import in_tiny, tiny

__all__ = ["config", "draw", "in_tiny", "make_mesh", "tiny"]
