"""The artifacts of configs/tiny."""

from tiny_run import in_tiny, tiny

__all__ = ["in_tiny", "tiny"]
