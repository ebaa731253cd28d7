"""What a chat template may use up. It is a program that came with somebody's weights.

Jinja's sandbox keeps a template from the machine, not from its time and memory: `'a' * 10**10`, a loop in a
loop, a list that holds itself twice, forty times over. Here what can make a value grow says first what will
come of it; whatever is kept (output, lists, arguments) is added up; turns of loops are counted, and a
rendering has a time to end in. An environment is for one thread.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import filters, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.visitor import NodeTransformer

LONGEST = 1 << 23
"""Characters of a value, and of what is rendered; what is no text counts as eight."""
MADE = 16 * LONGEST
"""Characters of all that is kept while rendering."""
TURNS = 1 << 18
"""Of all loops together, and calls."""
SECONDS = 10.0
"""Of a rendering."""
_LAYOUT = ("batch", "center", "pprint", "slice", "urlize", "wordwrap", "xmlattr")
"""Filters for pages of people: no chat template needs them, and each is a way to grow."""


class Spent(jinja2.TemplateError):
    """A template wants more than it may have."""


def size(value: Any) -> int:
    """Characters of a value as it would be written out; stops counting a little above LONGEST."""
    if isinstance(value, str | bytes):
        return len(value)
    found, left = 0, [value]
    while left and found <= LONGEST:
        one = left.pop()
        if isinstance(one, str | bytes):
            found += len(one)
            continue
        found += 8
        if isinstance(one, Mapping):
            left += one.keys()
            left += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
    return found


def _filled(pattern: str, given: Any, holes: int) -> int:
    """Most characters of `pattern` with its `holes` filled; any number in it may be a width."""
    widths = sum(map(int, re.findall(r"\d{1,9}", pattern)))
    numbers = given if isinstance(given, tuple) else (given,)  # of a mapping none can be a width
    stars = sum(abs(one) for one in numbers if isinstance(one, int)) if "*" in pattern else 0
    return len(pattern) + widths + stars + holes * size(given)


class _Counted(NodeTransformer):
    """What loops go over, joins and literals pass through a filter of the environment."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = self._through("turns", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._through("concat", nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    def visit_List(self, node: nodes.List | nodes.Dict | nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        is_target = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if is_target else self._through("kept", node)

    visit_Dict = visit_Tuple = visit_List

    def _through(self, name: str, node: nodes.Node) -> nodes.Node:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox for templates whose renderings end, in bounded memory. Errors: Spent, a TemplateError."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **options: Any):
        super().__init__(finalize=self.kept, **options)
        del self.globals["lipsum"]
        own = (self._tojson, self._replace, self._join, self._indent, self._format)
        self.filters = {name: found for name, found in self.filters.items() if name not in _LAYOUT}
        self.filters |= {one.__name__.removeprefix("_"): one for one in own}
        self.filters |= {"turns": self.turns, "kept": self.kept, "concat": self.concat}
        self.begin()

    def _parse(self, *given: Any) -> nodes.Template:
        return _Counted().visit(super()._parse(*given))

    def begin(self) -> None:
        """A rendering begins."""
        self._turns = self._made = 0
        self._until = time.monotonic() + SECONDS

    def spend(self, made: int, turns: int = 1) -> None:
        """There will be a value of `made` characters, or there were `turns` of a loop."""
        self._turns += turns
        self._made += made
        if made > LONGEST:
            raise Spent(f"a value of more than {LONGEST:,} characters")
        if self._made > MADE:
            raise Spent(f"more than {MADE:,} characters of values")
        if self._turns > TURNS:
            raise Spent(f"more than {TURNS:,} turns of loops and calls")
        if time.monotonic() > self._until:
            raise Spent(f"more than {SECONDS:g} seconds")

    def kept(self, value: Any) -> Any:
        """A value that is written out, or held by another."""
        if type(value) is not str:
            self.spend(size(value))
            return value
        self._made += len(value)
        if self._made > MADE:
            self.spend(0)
        return value

    def concat(self, pieces: Iterable[Any]) -> str:
        """The whole, blocks, macros and `~`; each piece was counted, or is the template's."""
        texts = [str(piece) for piece in pieces]
        self.spend(sum(map(len, texts)))
        return "".join(texts)

    def turns(self, values: Iterable[Any]) -> Iterator[Any]:
        """What a loop goes over, counted."""
        for turn, value in enumerate(values, 1):
            if turn % 16 == 0:
                self.spend(0, turns=16)
            yield value
        self._turns += 1

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is type(right) is str and len(left) + len(right) <= LONGEST:
            return left + right  # it is counted where it is kept
        made = 8
        if operator == "+":
            made = size(left) + size(right)
        elif operator == "%":
            made = _filled(left, right, left.count("%")) if isinstance(left, str) else 8
        elif isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length()
            made = 64 * (bits * right if operator == "**" else bits + right.bit_length())
        elif operator == "*" and isinstance(right, int):
            made = size(left) * right
        elif operator == "*" and isinstance(left, int):
            made = size(right) * left
        self.spend(made)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *given: Any, **named: Any) -> Any:
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str | bytes | int):
            if name == "join":
                given = tuple(list(__self.turns(one)) for one in given)
            __self._method(owner, name, (*given, *named.values()))
        for one in given:
            __self.kept(one)
        found = super().call(__context, __obj, *given, **named)
        return __self.kept(found) if isinstance(found, list | dict | tuple) else found

    def wrap_str_format(self, value: Any) -> Any:
        name, owner = getattr(value, "__name__", ""), getattr(value, "__self__", None)
        if name not in ("format", "format_map") or not isinstance(owner, str):
            return None

        def bounded(*given: Any, **named: Any) -> str:
            fields = given[0] if name == "format_map" else named
            self.spend(_filled("", [given, fields], owner.count("{")))
            return _Formatter(self).vformat(owner, () if name == "format_map" else given, fields)

        return bounded

    def _method(self, owner: str | bytes | int, name: str, given: tuple[Any, ...]) -> None:
        """Spend what a method of `owner` makes, called with `given`; any number may be a width."""
        made = sum(abs(one) for one in given if isinstance(one, int))
        if isinstance(owner, str | bytes):
            made += len(owner)
            if name == "translate":
                raise Spent("translate, which may make any text of one letter")
            if name == "replace" and len(given) > 1:
                made += owner.count(given[0]) * size(given[1])
            if name == "join" and given:
                made += size(given[0]) + len(owner) * len(given[0])
            if name == "expandtabs":
                made += owner.count("\t") * (given[0] if given else 8)
        self.spend(made)

    def _replace(self, value: Any, old: Any, new: Any, count: int = -1) -> str:
        self._method(str(value), "replace", (str(old), str(new)))
        return str(value).replace(str(old), str(new), count)

    @jinja2.pass_eval_context
    def _join(self, context: Any, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
        items = list(self.turns(value))
        self._method(str(d), "join", (items,))
        return filters.sync_do_join(context, items, d, attribute)

    def _indent(self, s: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        wide = width if isinstance(width, int) else len(width)
        self.spend(len(str(s)) + (str(s).count("\n") + 2) * wide)
        return filters.do_indent(str(s), width, first, blank)

    def _format(self, value: Any, *given: Any, **named: Any) -> str:
        self.spend(_filled(str(value), named or given, str(value).count("%")))
        return filters.do_format(str(value), *given, **named)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As in `transformers`: nothing is escaped for HTML."""
        self.spend(size(value) * (1 + size(separators or "")) + ((indent or 0) << 16))
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        return encoder.encode(value) if indent is None else self.concat(encoder.iterencode(value))


class _Formatter(SandboxedFormatter):
    """Looks at a width once it stands in its field."""

    def __init__(self, environment: BoundedEnvironment):
        super().__init__(environment)
        self._bounded = environment

    def format_field(self, value: Any, format_spec: str) -> Any:
        self._bounded.spend(_filled(format_spec, "", 0))
        return super().format_field(value, format_spec)
