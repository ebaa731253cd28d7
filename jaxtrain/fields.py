"""Every field of a config with its type, default and meaning: what `jaxtrain STAGE --help` shows.

The meaning is the docstring under the field, so the help is the source and cannot go stale.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import shlex
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from numbers import Integral, Real
from pathlib import PurePath
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtrain.runtime import limits
from jaxtrain.runtime.errors import UserError

MISSING = dataclasses.MISSING
Type = TypeVar("Type")


class Change(Enum):
    """What a new value of a field does to an artifact that stands."""

    OPERATIONAL = auto()
    ADJUSTABLE = auto()


Operational = Annotated[Type, Change.OPERATIONAL]
"""Of where and how the work is done and shown, as in `workers: Operational[int]`; no part of an artifact."""
Adjustable = Annotated[Type, Change.ADJUSTABLE]
"""Part of a finished artifact; but a run that was interrupted goes on with a new value."""
NUMBERS = {int: Integral, float: Real}
"""What goes for a number of each type."""
CHANGEABLE = "may change"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field as a reader sees it."""

    name: str
    """Dotted from the top, for example `optimizer.lr`."""
    kind: str
    """`int`, `text`, `cosine|linear`, …"""
    default: str
    """As it is typed on the command line; `required` where there is none."""
    meaning: str
    """The docstring under the field."""
    settable: bool
    """Whether the command line can set it; a list of configs is edited in the file."""
    changeable: bool
    """Whether a run that was interrupted goes on with a new value."""
    of: str
    """The name in its class, of which a mapping's members are one."""
    is_set: bool
    """Whether the value that is shown is another than the default."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The fields of one dataclass."""

    kind: str
    """The name of the dataclass."""
    title: str
    meaning: str
    fields: list[Field]


def changes(kind: type) -> dict[str, Change]:
    """The fields of a dataclass that are marked `Operational` or `Adjustable`."""
    hints = get_type_hints(kind, include_extras=True)
    marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return {name: mark for name, given in marks.items() for mark in given if isinstance(mark, Change)}


def sections(
    kind: type, value: Any = None, prefix: str = "", settable: bool = True, changeable: bool = False
) -> Iterator[Section]:
    """The fields of `kind`, then those of the configs inside it.

    value: an instance whose values are shown in place of the defaults.
    settable, changeable: what is true of all fields, because it is of the one that holds them.
    """

    hints, meanings, marks = get_type_hints(kind), docstrings(kind), changes(kind)
    own: list[Field] = []
    inner: list[Section] = []
    for field in dataclasses.fields(kind):
        name, hint, meaning = prefix + field.name, hints[field.name], meanings.get(field.name, "")
        current = default_of(field) if value is None else getattr(value, field.name)
        can_change = changeable or field.name in marks
        if dataclasses.is_dataclass(hint):
            inner += sections(hint, None if current is MISSING else current, f"{name}.", settable, can_change)
            continue
        if isinstance(current, Mapping) and current:
            shown = [(f"{name}.{key}", get_args(hint)[1], member) for key, member in current.items()]
        else:
            shown = [(name, hint, current)]
            for part in _configs_in(hint):
                inner += sections(part, settable=False, changeable=can_change)
        for name, hint, current in shown:
            inside = bool(_configs_in(hint))
            own.append(
                Field(
                    name=name,
                    kind="in the file" if inside else _type_text(hint),
                    default=_value_text(current, inside),
                    meaning=meaning,
                    settable=settable and not inside,
                    changeable=can_change,
                    of=field.name,
                    is_set=value is not None and current != default_of(field),
                )
            )
    doc = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
    meaning = "" if doc.startswith(f"{kind.__name__}(") else doc  # a dataclass without one gets its signature
    title = prefix.removesuffix(".") or kind.__name__
    yield Section(kind=kind.__name__, title=title, meaning=meaning, fields=own)
    yield from inner


def lists_of_configs(kind: type) -> list[str]:
    """The fields that the command line cannot set."""
    hints = get_type_hints(kind)
    return [name for name, hint in hints.items() if _configs_in(hint) and not dataclasses.is_dataclass(hint)]


def docstrings(kind: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, its own or inherited, on one line."""
    found: dict[str, str] = {}
    # a class that a config file defines is of no module, and has no text to be found
    known = [base for base in kind.__mro__ if base.__module__ in sys.modules]
    bases = reversed([base for base in known if dataclasses.is_dataclass(base)])
    bodies = [ast.parse(textwrap.dedent(inspect.getsource(base))).body[0] for base in bases]
    pairs = (reversed([*itertools.pairwise(body.body)]) for body in bodies if isinstance(body, ast.ClassDef))
    for field, text in itertools.chain.from_iterable(pairs):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            name = field.target.id
            match text:
                case ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
                case ast.AnnAssign(target=ast.Name(id=behind)) if _unnumbered(behind) == _unnumbered(name):
                    found[name] = found.get(behind, "")
    return found


def _unnumbered(name: str) -> str:
    """The same for fields that differ in a number alone, which one docstring under the last explains."""
    return re.sub(r"\d+", "", name)


def check(config: Any, prefix: str = "") -> None:
    """UserError naming the first field of a config, or of one in it, that has another type or a number out
    of its limits; of this project's configs a number is at least 0 where nothing else is said."""
    hints, declared = get_type_hints(type(config)), get_type_hints(type(config), include_extras=True)
    unsaid = limits.Limits() if type(config).__module__.startswith("jaxtrain.") else limits.ANY
    for field in dataclasses.fields(config):
        name, value, hint = prefix + field.name, getattr(config, field.name), hints[field.name]
        if not _fits(value, hint):
            shown = repr(value) if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
            several = "it takes several: put a comma behind the one and brackets around it, (…,)"
            remedy = several if _fits((value,), hint) else f"it takes {_type_text(hint)}"
            raise UserError(f"{name} is {shown}; {remedy}")
        own = limits.of(declared[field.name], unsaid)
        for key, member in _members(value):
            is_number = isinstance(member, (int, float)) and not isinstance(member, bool)
            if is_number and not own.holds(member):
                raise UserError(f"{name}{key} is {member:g}; it is {own}")
            if dataclasses.is_dataclass(member) and not isinstance(member, type):
                check(member, f"{name}{key}.")
    if hasattr(config, "check"):
        config.check()


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case Mapping():
            yield from ((f".{key}", member) for key, member in value.items())
        case list() | tuple():
            yield from ((f"[{at}]", member) for at, member in enumerate(value))
        case _:
            yield "", value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as the types of configs go; a list does for a tuple."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (tuple, list):
        return isinstance(value, (tuple, list)) and all(_fits(member, arguments[0]) for member in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(_fits(member, arguments[1]) for member in value.values())
    if hint in NUMBERS:
        return isinstance(value, NUMBERS[hint]) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, (str, PurePath))
    return not isinstance(hint, type) or getattr(hint, "_is_protocol", False) or isinstance(value, hint)


def is_required(kind: type, name: str) -> bool:
    """Whether the field has no default."""
    return any(field.name == name and default_of(field) is MISSING for field in dataclasses.fields(kind))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """What the field holds where nothing is given; MISSING where it has to be."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _configs_in(hint: Any) -> list[type]:
    """The dataclasses inside `tuple[A | B, ...]` or `dict[str, A]`; of a base class those derived."""
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return [part for derived in hint.__subclasses__() for part in _configs_in(derived)] or [hint]
    return [part for argument in get_args(hint) for part in _configs_in(argument)]


def _type_text(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return "|".join(map(_type_text, arguments))
    if origin in (tuple, list):
        return f"{_type_text(arguments[0])} ..."
    if origin is dict:
        return f"{{text: {_type_text(arguments[1])}}}"
    return {str: "text", types.NoneType: "None"}.get(hint, getattr(hint, "__name__", str(hint)))


def _value_text(value: Any, inside: bool) -> str:
    if value is MISSING:
        return "required"
    if inside:
        return f"{len(value)} given" if value else "none"
    if isinstance(value, (list, tuple)):
        return " ".join(shlex.quote(str(item)) for item in value) or "none"
    return str(value) if value != "" else "''"
