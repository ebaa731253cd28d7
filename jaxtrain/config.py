"""A config file is Python that defines `config`, a frozen dataclass of one stage. It is code: run your own.

The class says the stage: `jaxtrain.pretrain.run.PretrainConfig` belongs to the room `pretrain`.

A recipe that comes in several sizes declares them in the file scales.toml of its folder, a table each. The
name of one is handed to all its configs (`--scale NAME`, else the first), which ask for its values:

    scale = scaled(__file__)
    config = PretrainConfig(train=TrainConfig(steps=scale.steps), out=f"{scale.runs}/4_pretrain")
"""

import dataclasses
import difflib
import importlib
import io
import itertools
import re
import runpy
import tomllib
import traceback
from contextlib import redirect_stderr, redirect_stdout
from contextvars import ContextVar
from importlib import metadata
from pathlib import Path, PurePath
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, get_type_hints

import tyro

from jaxtrain import fields
from jaxtrain.runtime.errors import UserError

SCALES = "scales.toml"
_asked: ContextVar[str] = ContextVar("scale", default="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """What every stage is told."""

    VERSION: ClassVar[int] = 1
    """Raised by a stage that gives another result for the same config and inputs (manifest.py)."""

    out: str
    """Folder to write."""
    scale: str = ""
    """Size of the recipe, where its folder declares several in scales.toml."""


def scales(folder: Path) -> dict[str, dict[str, Any]]:
    """What the scales of a recipe differ in, by name; empty where it declares none."""
    file = folder / SCALES
    try:
        return tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise UserError(f"{file}: {error}; it holds a table a scale, such as [tiny]") from None


def scaled(file: str) -> SimpleNamespace:
    """Of a config file (`__file__`): the values of the scale that was asked for, its `name`, and `runs`, the
    folder of its artifacts, as runs/speedrun-tiny."""
    folder = Path(file).resolve().parent
    known = scales(folder)
    if not known:
        raise UserError(f"{folder} declares no scale; write its {SCALES}, a table a scale, such as [tiny]")
    name = _asked.get() or next(iter(known))
    return SimpleNamespace(name=name, runs=f"runs/{folder.name}-{name}", **known[name])


def scale_in(arguments: list[str]) -> str:
    """What `--scale` is given among the arguments of a command; empty where it is not there."""
    words = [part for word in arguments for part in word.split("=", 1)]
    return next((value for flag, value in itertools.pairwise(words) if flag == "--scale"), "")


def load(path: str | Path, scale: str = "") -> Any:
    """The `config` that the file at `path` defines, at one of the scales of its folder."""
    path = Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], 1, 0.4)
        hint = f"did you mean {path.parent / near[0]}?" if near else "see configs/ for complete examples"
        raise UserError(f"no config file {path}; {hint}")
    known = [*scales(path.parent)]
    if scale and scale not in known:
        remedy = f"choose one of {', '.join(known)}" if known else f"it has no {SCALES}: leave --scale out"
        raise UserError(f"{path.parent} declares no scale {scale!r}; {remedy}")
    token = _asked.set(scale)
    try:
        config = runpy.run_path(str(path)).get("config")
    except Exception as error:  # whatever goes wrong in the reader's own file, the reader can mend
        raise UserError(_explain(path, error)) from error
    finally:
        _asked.reset(token)
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise UserError(f"{path} defines no `config`; end it with `config = ...Config(...)`")
    room = room_of(config)
    takes = get_type_hints(room.run) if room else {}  # what makes a stage's artifact says of which configs
    if takes.get("return") is not Path or not isinstance(config, takes["config"]):
        raise UserError(f"{path}: a {type(config).__name__} configures no stage; give `config` one's class")
    if known:
        config = dataclasses.replace(config, scale=scale or known[0])
    try:
        fields.check(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return config


def _explain(path: Path, error: Exception) -> str:
    """The file, the line and Python's message, with the nearest field where a keyword is misspelt."""
    frames = [f for f in traceback.walk_tb(error.__traceback__) if f[0].f_code.co_filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1][1] if frames else None
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    if wrong := re.match(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", message):
        kind, name = wrong.groups()
        known = [field.name for field in dataclasses.fields(frames[-1][0].f_globals[kind])]
        message = f"{kind} has no field {name!r}; did you mean {nearest(name, known)!r}?"
    elif missing := re.match(r"(\w+)\.__init__\(\) missing .*?: (.*)", message):
        message = f"{missing[1]} needs {missing[2]}"
    elif not isinstance(error, UserError):
        remedy = missing_extra(error) if isinstance(error, ModuleNotFoundError) else None
        message = remedy or f"{type(error).__name__}: {message}"
    return f"{path}{f', line {line}' if line else ''}: {message}"


def extras() -> list[tuple[str, str, str]]:
    """Each package that an extra installs, the extra of its own (`tpu` of `jax[tpu]`), and the extra."""
    try:
        lines = metadata.requires("jaxtrain") or ()
    except metadata.PackageNotFoundError:
        return []
    found = [re.match(r"([\w-]+)(?:\[([\w-]+)\])?.*extra == .(\w+)", line) for line in lines]
    return [(match[1], match[2] or "", match[3]) for match in found if match and match[1] != "jaxtrain"]


def missing_extra(error: ModuleNotFoundError) -> str | None:
    """What to install where a package of an extra is missing; None where it is of none."""
    module = (error.name or "?").split(".")[0].lower()
    for package, _, extra in extras():
        if package.lower().replace("-", "_").startswith(module):
            return f"this needs {package}, which is not installed: `pip install 'jaxtrain[{extra}]'`"
    return None


def nearest(wrong: str, known: list[str]) -> str:
    """The name that was probably meant."""
    return difflib.get_close_matches(wrong, known, 1, 0.0)[0]


def stage_of(config: Any) -> str:
    """The room that a config belongs to; empty where its class is not of jaxtrain."""
    parts = type(config).__module__.split(".")
    return parts[1] if parts[0] == "jaxtrain" and len(parts) > 2 else ""


def room_of(config: Any) -> ModuleType | None:
    """The module whose `run` takes `config`, or None where no stage does."""
    name = f"jaxtrain.{stage_of(config)}.run"
    try:
        return importlib.import_module(name) if stage_of(config) else None
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def override(config: Any, arguments: list[str]) -> Any:
    """Apply `--field value` and `--nested.field value`; an unknown field is an error naming the nearest.

    The end of a field's name does where it is the end of no other: `--steps` for `--train.steps`.
    """
    return from_flags(type(config), arguments, config)


def changed(config: Any, **values: Any) -> Any:
    """`dataclasses.replace` that reaches inside: `changed(config, train__steps=2)` sets `train.steps`."""
    for name, value in values.items():
        field, _, rest = name.partition("__")
        inner = changed(getattr(config, field), **{rest: value}) if rest else value
        config = dataclasses.replace(config, **{field: inner})
    return config


def divided(kind: type, arguments: list[str]) -> tuple[list[str], list[str]]:
    """The flags that are fields of `kind` with their values, and the others with theirs."""
    known = _known(kind)
    own: list[str] = []
    others: list[str] = []
    target = others
    for argument in arguments:
        if argument.startswith("--"):
            target = own if argument[2:].split("=")[0] in known else others
        target.append(argument)
    return own, others


def _known(kind: type, default: Any = None) -> dict[str, fields.Field]:
    every = [field for part in fields.sections(kind, default) for field in part.fields]
    # A field of a config in a list may be named like one of the whole, which is the one that a flag means.
    return {field.name: field for field in sorted(every, key=lambda field: field.settable)}


def from_flags(kind: type, arguments: list[str], default: Any = None) -> Any:
    """A config of `kind` from the command line; what `default` does not have must be there."""
    known = _known(kind, default)
    arguments = _with_switches([_whole_name(argument, known) for argument in arguments], known)
    flags = [argument.split("=")[0] for argument in arguments if re.match(r"--\w", argument)]
    for flag in flags:
        field = known.get(flag[2:].replace("-", "_"))
        if field is None:
            near = nearest(flag[2:], [name for name in known if known[name].settable])
            raise UserError(f"{kind.__name__} has no field {flag}; did you mean --{near}?")
        if not field.settable:
            raise UserError(f"{flag} is a list of configs; edit it in the config file")
    if default is None:
        given_names = {flag[2:].replace("-", "_") for flag in flags}
        for name, field in known.items():
            if field.default == "required" and field.settable and name not in given_names:
                raise UserError(f"--{name} is required: {field.meaning}")
    printed = io.StringIO()
    # Its lists of configs pass by: a class in them need not be one that tyro can make.
    kept = {} if default is None else {name: getattr(default, name) for name in fields.lists_of_configs(kind)}
    bare = {name: type(value)() for name, value in kept.items()}
    given = {} if default is None else {"default": dataclasses.replace(default, **bare)}
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            parsed = tyro.cli(
                kind,
                args=arguments,
                use_underscores=True,
                add_help=False,
                config=(tyro.conf.FlagConversionOff,),
                **given,
            )
    except SystemExit as stop:
        raise UserError(_refusal(printed.getvalue())) from stop
    parsed = dataclasses.replace(parsed, **kept)
    fields.check(parsed)
    return parsed


def _with_switches(arguments: list[str], known: dict[str, fields.Field]) -> list[str]:
    """`--merge` alone is `--merge True`."""
    given: list[str] = []
    for argument, after in itertools.pairwise([*arguments, "--"]):
        is_switch = argument[2:] in known and known[argument[2:]].kind == "bool"
        given += [argument, "True"] if is_switch and after.startswith("--") else [argument]
    return given


def _whole_name(argument: str, known: dict[str, fields.Field]) -> str:
    """`--steps` is `--train.steps` where one field alone ends so; `--from` is the field `from_`."""
    flag, equals, value = argument.partition("=")
    name = flag[2:].replace("-", "_")
    if not re.match(r"--\w", argument) or (name in known and known[name].settable):
        return argument
    ends = [whole for whole in known if whole.endswith(f".{name}") or whole == f"{name}_"]
    ends = [whole for whole in ends if known[whole].settable]
    return f"--{ends[0]}{equals}{value}" if len(ends) == 1 else argument


def _refusal(printed: str) -> str:
    """What tyro says in a box, as one line without its title and its hint."""
    lines = [line.strip("│| ") for line in printed.splitlines()]
    body = [line for line in lines if line.strip("-─╭╮╰╯+ ")]
    words = re.split(r" (?:Argument|For full) helptext", " ".join(body[1:]))[0]
    return f"{words.removesuffix('.')}; overrides are --FIELD VALUE"


def to_json(config: Any) -> Any:
    """The resolved config as JSON values, operational fields aside; sub-configs carry their class's name."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        marks = fields.changes(type(config))
        names = [field.name for field in dataclasses.fields(config)]
        kept = [name for name in names if marks.get(name) is not fields.Change.OPERATIONAL]
        values = {name: to_json(getattr(config, name)) for name in kept}
        return {"class": type(config).__name__, **values}
    if isinstance(config, (list, tuple)):
        return [to_json(value) for value in config]
    if isinstance(config, dict):
        return {str(key): to_json(value) for key, value in config.items()}
    if isinstance(config, PurePath):
        return config.as_posix()
    assert config is None or isinstance(config, (str, int, float)), f"{config!r} has no place in a config"
    return config
