from tiny_model import config, draw, make_mesh

__all__ = ["config", "draw", "make_mesh"]
