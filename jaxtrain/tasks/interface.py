"""What tests ask of the program that they test: names of functions, called with plain values.

The program runs in another process than its tests (`judge.py`). Tests that need more of it than values are
refused when their file is read, not scored 0 answer by answer.
"""

import ast
import builtins
import symtable
import sys

_RUN_TEXT = {"eval", "exec", "compile", "__import__"}
_RUN_DATA = {"pickle", "marshal", "shelve", "importlib", "runpy", "ctypes", "subprocess", "multiprocessing"}
_VALUES = (
    "a program's functions are called with plain values and answer with such (None, numbers, text, lists, …)"
)
_PLAIN = {
    name for kind in (bool, int, float, str, bytes, list, tuple, set, dict, type(None)) for name in dir(kind)
}


def names(tests: str, prompt: str = "", entry_point: str = "") -> tuple[str, ...]:
    """The program's names in `tests`, sorted: `entry_point`, and what tests, prompt and Python do not define.

    Errors: ValueError where the tests need more than calls with plain values, or nothing.
    """
    try:
        tree, table = ast.parse(tests), symtable.symtable(tests, "tests", "exec")
        given = _defined(symtable.symtable(prompt, "prompt", "exec")) - {entry_point}
    except SyntaxError as error:
        raise ValueError(f"the tests are no Python: {error}") from error
    known = _defined(table) | given | set(dir(builtins))
    found = _globals(table) - known
    if not found:
        raise ValueError("the tests name no function of the program: any program would pass them")
    nodes = list(ast.walk(tree))
    answers = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and _called(node.value) in found
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in nodes:
        if fault := _fault(node, found, answers, known):
            raise ValueError(f"line {getattr(node, 'lineno', 0)} of the tests {fault}")
    return tuple(sorted(found))


def _defined(table: symtable.SymbolTable) -> set[str]:
    return {
        symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
    }


def _globals(table: symtable.SymbolTable) -> set[str]:
    """Names that are looked up in the module, at any depth."""
    top = table.get_type() == "module"
    found = {
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (top or symbol.is_global())
    }
    return found.union(*map(_globals, table.get_children()))


def _fault(node: ast.AST, found: set[str], answers: set[str], known: set[str]) -> str:
    """What `node` needs that cannot cross, or how it would run what the program says; empty if neither."""
    match node:
        case ast.Import():
            return _import([one.name for one in node.names])
        case ast.ImportFrom():
            return _import([node.module or "."])
        case ast.Name() if node.id in _RUN_TEXT:
            return f"uses {node.id}, which could run what the program answers"
        case ast.Attribute(value=ast.Name(id=name)) if name in found:
            return f"needs {name}.{node.attr}: {_VALUES}"
        case ast.Attribute(value=held) if node.attr not in _PLAIN:
            if _called(held) in found or (isinstance(held, ast.Name) and held.id in answers):
                return f"needs .{node.attr} of an answer: {_VALUES}"
        case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
            bases = node.bases if isinstance(node, ast.ClassDef) else []
            return _itself([*bases, *node.decorator_list], found)
        case ast.ExceptHandler(type=ast.expr() as kind):
            return _itself([kind], found)
        case ast.Call(func=ast.Name(id="isinstance" | "issubclass")):
            return _itself(node.args[1:], found)
        case ast.Call(func=ast.Name(id=name)) if name not in known:
            if any(isinstance(one, ast.Lambda) for one in node.args):
                return f"hands {name} a function: {_VALUES}"
    return ""


def _import(modules: list[str]) -> str:
    for module in (name.split(".")[0] for name in modules):
        if module in _RUN_DATA:
            return f"imports {module}, which could run what the program answers"
        if module not in sys.stdlib_module_names:
            return f"imports {module}: only Python's own modules are there"
    return ""


def _itself(nodes: list[ast.expr], found: set[str]) -> str:
    for one in (one for node in nodes for one in ast.walk(node)):
        if isinstance(one, ast.Name) and one.id in found:
            return f"needs {one.id} itself: {_VALUES}"
    return ""


def _called(node: ast.AST) -> str:
    """The name of the function that is called, if it is a call of a name."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
