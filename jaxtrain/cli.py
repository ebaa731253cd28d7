"""`jaxtrain COMMAND …`: the commands of commands.toml, each done by the room that declares its fields."""

import dataclasses
import importlib
import os
import pkgutil
import shlex
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

import jaxtrain
from jaxtrain import artifact, fields, pipeline, recipe
from jaxtrain import config as configs
from jaxtrain.runtime.errors import UserError
from jaxtrain.runtime.terminal import visible


@dataclass(frozen=True)
class Command:
    """What one command does, and where. Rooms are imported when their command is given."""

    meaning: str
    heading: str = ""
    """Above it in the help, where a group of commands begins with it."""
    files: str = ""
    """`room:Class Class`: the configs that it takes as a Python file."""
    flags: str = ""
    """`room:Class function`: the config that its flags fill, and what is done with it."""
    takes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The fields of that config that come first, without their names, an example of each; the last may be
    many."""
    passes_on: bool = False
    """Whether the function is also given the flags that are no fields of that config."""


_TABLE = Path(__file__).with_name("commands.toml").read_text("utf-8")
COMMANDS = {name: Command(**of) for name, of in tomllib.loads(_TABLE).items()}
ALIASES = {"sft": "finetune", "help": "--help"}
START = """\
Raw documents to an aligned, evaluated language model. To begin:
  jaxtrain init mine --from tiny && jaxtrain run mine
"""
END = """
jaxtrain COMMAND --help: the fields that recipes set; --help all: every field
Config files are Python and are executed: run only your own."""

RESTART = "--restart"
RESTART_HELP = "--restart: what an unfinished run left in OUT.partial is set aside, and the stage begins anew"
SHORT_HELP = "\nRequired, or set by recipes; all fields: --help all. May change: also where a run goes on"
COLUMN = 34  # where the meaning of a field begins
HELP_FLAGS = {"-h", "--help"}


def main(arguments: list[str] | None = None) -> None:
    """The `jaxtrain` command; exits with 2 and one line where the user can mend it."""
    try:
        dispatch(sys.argv[1:] if arguments is None else arguments)
    except (UserError, ModuleNotFoundError) as error:
        told = str(error) if isinstance(error, UserError) else configs.missing_extra(error)
        if told is None:
            raise
        print(f"jaxtrain: {visible(told)}", file=sys.stderr)
        _end(2)
    except KeyboardInterrupt:
        print("\njaxtrain: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _end(status: int) -> NoReturn:
    """Of several processes at once: at exit JAX waits for the others, which may be waiting for this one."""
    jax = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def dispatch(arguments: list[str]) -> None:
    """Run what the arguments name; UserError where they name nothing."""
    artifact.COMMAND.set(shlex.join(["jaxtrain", *arguments]))
    name, *rest = arguments or ["--help"]
    name = ALIASES.get(name, name)
    if name in HELP_FLAGS:
        print(_overview())
        return
    if name == "--version":
        print(f"jaxtrain {jaxtrain.__version__}")
        return
    if rest and f"{name} {rest[0]}" in COMMANDS:
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        near = configs.nearest(name, [*COMMANDS, *ALIASES])
        raise UserError(f"no command {name!r}; did you mean {near!r}? `jaxtrain --help` lists them")
    command, is_file = COMMANDS[name], bool(rest) and rest[0].endswith(".py")
    if HELP_FLAGS & set(rest) or (not rest and command.files):
        _print_help(name, command, rest if is_file and command.files else [], "all" in rest)
    elif command.files and (is_file or not command.flags):
        _run_file(name, command, rest)
    else:
        _run_flags(name, command, rest)


def _run_file(name: str, command: Command, rest: list[str]) -> None:
    """A stage by its config file, or by flags alone where its config is one class without lists of others."""
    words = [word for word in rest if word != RESTART]
    if words and not words[0].startswith("-"):
        config = configs.override(_load(command, words[0], configs.scale_in(words)), words[1:])
    elif kind := _made_of_flags(command):
        config = configs.from_flags(kind, words)
    else:
        raise UserError(f"name a config file before {rest[0]}; `jaxtrain init` writes some")
    print(made := pipeline.make(config, RESTART in rest))
    pipeline.say_next([config], [made])


def _made_of_flags(command: Command) -> type | None:
    """The class of a stage's config where flags can make all of it."""
    kind, *others = _resolved(command.files)
    return None if others or fields.lists_of_configs(kind) else kind


def _load(command: Command, path: str, scale: str) -> Any:
    """The config in the file; UserError where another command takes it."""
    config = configs.load(path, scale)
    kind = type(config).__name__
    if kind not in _names(command.files):
        other = next(name for name, of in COMMANDS.items() if kind in _names(of.files))
        raise UserError(f"{path} is a config of {other}; run `jaxtrain {other} {path}`")
    return config


def _run_flags(name: str, command: Command, rest: list[str]) -> None:
    kind, does = _resolved(command.flags)
    words = rest[: next((at for at, word in enumerate(rest) if word.startswith("-")), len(rest))]
    required = [name for name in command.takes if fields.is_required(kind, name)]
    if required and not rest:
        _print_help(name, command, [], False)
        return
    if len(words) < len(required):
        before = f" before {rest[len(words)]}" if len(rest) > len(words) else ""
        wanted = " and ".join(map(str.upper, required[len(words) :]))
        example = " ".join(["jaxtrain", name, *command.takes.values()])
        raise UserError(f"{name} takes {wanted}{before}, for example `{example}`")
    flags: list[str] = []
    for at, (taken, word) in enumerate(zip(command.takes, words, strict=False), 1):
        flags += [f"--{taken}", *([word] if at < len(command.takes) else words[at - 1 :])]
    flags += rest[len(words) :]
    if command.passes_on:
        flags, others = configs.divided(kind, flags)
        made = does(configs.from_flags(kind, flags), others)
    else:
        made = does(configs.from_flags(kind, flags))
    if made is not None:
        print(made)


def _names(place: str) -> list[str]:
    return place.partition(":")[2].split()


def _resolved(place: str) -> list[Any]:
    """What the room of `room:name name` calls so."""
    room = importlib.import_module(f"jaxtrain.{place.partition(':')[0]}")
    return [getattr(room, name) for name in _names(place)]


def _import_room(place: str) -> None:
    """Import all modules of a room: a list of configs may hold what any of them defines."""
    package = importlib.import_module(f"jaxtrain.{place.partition('.')[0]}")
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)


def _overview() -> str:
    lines = [START]
    for name, command in COMMANDS.items():
        lines += [f"{command.heading}:"] if command.heading else []
        lines.append(f"  {name:<16}{command.meaning}")
    return "\n".join(lines) + END


def _print_help(name: str, command: Command, beside: list[str], is_all: bool) -> None:
    """Usage, then the fields that recipes set, or all; beside a config file, the first word, its values."""
    print(*_usage(name, command, "".join(beside[:1])), sep="\n")
    if beside:
        config = _load(command, beside[0], configs.scale_in(beside))
        _print_fields(type(config), config, is_all)
        return
    kinds = _resolved(command.files) if command.files else []
    if any(map(fields.lists_of_configs, kinds)):
        _import_room(command.files)
    if name == "align" and not is_all:
        kinds = []  # each is shown by its own command
    for kind in kinds + (_resolved(command.flags)[:1] if command.flags else []):
        _print_fields(kind, None, is_all)
    if not is_all:
        print(SHORT_HELP)


def _usage(name: str, command: Command, file: str) -> list[str]:
    lines = []
    if command.files:
        config = file or ("[CONFIG]" if _made_of_flags(command) else "CONFIG")
        lines.append(f"jaxtrain {name} {config} [{RESTART}] [--FIELD VALUE ...]")
    if command.flags and not file:
        lines.append(" ".join(["jaxtrain", name, *map(str.upper, command.takes), "[--FIELD VALUE ...]"]))
    lines.append(command.meaning + ("; the values are the file's" if file else ""))
    if command.files:
        lines.append(RESTART_HELP)
    return lines


def _print_fields(kind: type, config: Any, is_all: bool) -> None:
    """A paragraph a section; a line a field: flag and type, meaning, [default]."""
    console = Console(highlight=False)
    for section in fields.sections(kind, config):
        # What no recipe uses at all, such as the flags of `chat`, is shown whole.
        common = recipe.fields_used().get(section.kind, () if section.kind != kind.__name__ else None)
        chosen = [
            field
            for field in section.fields
            if is_all or common is None or field.of in common or field.is_set or field.default == "required"
        ]
        if chosen:
            console.print(Text(f"\n{section.title}", "bold").append(f"  {section.meaning}", "not bold"))
        for field in chosen:
            _print_field(console, field)


def _print_field(console: Console, field: fields.Field) -> None:
    flag = f"  {'--' if field.settable else '  '}{field.name.removesuffix('_')} {field.kind}"
    default = field.default + f"; {fields.CHANGEABLE}" * field.changeable
    words = f"{field.meaning} [{default}]".strip()
    lines = textwrap.wrap(words, max(30, console.width - COLUMN), break_on_hyphens=False)
    if len(flag) > COLUMN - 2:
        lines.insert(0, "")
    text = f"\n{'':{COLUMN}}".join(lines)
    head = Text(f"{flag:<{COLUMN if lines[0] else 0}}", "cyan")
    console.print(head.append(text, "default"), soft_wrap=True)
