"""A config file is Python that defines `config`, a frozen dataclass of one stage. It is code: run only your own.

The class says the stage: `jaxtrain.pretrain.run.PretrainConfig` belongs to the room `pretrain`.
"""

import dataclasses
import difflib
import importlib
import io
import json
import runpy
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import tyro

from jaxtrain.runtime.errors import UserError


def load(path: str | Path) -> Any:
    """The `config` that the file at `path` defines."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], 1, 0.4)
        hint = f"; did you mean {path.parent / near[0]}?" if near else "; see configs/ for complete examples"
        raise UserError(f"no config file {path}{hint}")
    try:
        config = runpy.run_path(str(path)).get("config")
    except (TypeError, SyntaxError, NameError, ImportError) as error:
        raise UserError(f"{path}: {_explain(error)}") from error
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UserError(f"{path} defines no `config`; end it with `config = ...Config(...)`")
    return config


def _explain(error: Exception) -> str:
    """Python's message, with the nearest field where a keyword is misspelt."""
    message = str(error)
    if "unexpected keyword argument" not in message:
        return message
    kind, wrong = message.split(".__init__")[0], message.split("'")[1]
    known: list[str] = []
    for module in list(importlib.sys.modules.values()):  # the file has just imported the class it calls
        found = getattr(module, kind, None) if (module.__name__ or "").startswith("jaxtrain") else None
        if dataclasses.is_dataclass(found):
            known = [f.name for f in dataclasses.fields(found)]
    near = difflib.get_close_matches(wrong, known, 1, 0.0)
    return f"{kind} has no field {wrong!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def stage_of(config: Any) -> str:
    """The room that a config belongs to."""
    return type(config).__module__.split(".")[1]


def override(config: Any, arguments: list[str]) -> Any:
    """Apply `--field value` and `--nested.field value`; an unknown field is an error naming the nearest."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            return tyro.cli(type(config), default=config, args=arguments, prog="jaxtrain", console_outputs=True)
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            print(printed.getvalue())
            raise
        raise UserError(_override_error(config, arguments, printed.getvalue())) from stop


def _override_error(config: Any, arguments: list[str], printed: str) -> str:
    known = ["--" + name for name in flatten(config)]
    for argument in arguments:
        flag = argument.split("=")[0]
        if flag.startswith("--") and flag.replace("_", "-") not in [k.replace("_", "-") for k in known]:
            near = difflib.get_close_matches(flag, known, 1, 0.0)
            return f"unknown field {flag}; did you mean {near[0]}?"
    words = " ".join(printed.translate(str.maketrans("", "", "╭╮╰╯│─")).split())
    return f"the overrides {' '.join(arguments)} do not fit: {words.removeprefix('Parsing error').strip()}"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """`{"optimizer.lr": 3e-4, …}`: every leaf field of nested configs."""
    leaves: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            leaves |= flatten(value, f"{prefix}{f.name}.")
        else:
            leaves[prefix + f.name] = value
    return leaves


def to_json(config: Any) -> Any:
    """The resolved config as JSON values; sub-configs carry the name of their class."""
    if dataclasses.is_dataclass(config):
        values = {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"class": type(config).__name__, **values}
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if isinstance(config, dict):
        return {str(key): to_json(value) for key, value in config.items()}
    return json.loads(json.dumps(config, default=str))
