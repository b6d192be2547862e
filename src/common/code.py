"""What code does: its syntax, whatever its comments, docstrings, type hints and layout.

By it the project decides whether something computed earlier is out of date (kept.py),
and whether a notebook's outputs are (results.py). No library tells what a function
depends on without running it, so this reads it off the names that its source mentions.
"""

import ast
import functools
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

#: Code under these folders is not ours.
LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
SIMPLE = (int, float, str, bytes, type(None))


def syntax_hash(source: str) -> str:
    """SHA-256 of the syntax of some source, the same in every version of Python."""
    return text_hash(repr(_plain(_tree(source))))


def text_hash(text: str) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def code_of(*roots: Callable, without: tuple = ()) -> dict[str, str]:
    """The code that runs when `roots` do: a hash of each piece, by its name.

    roots: functions, methods of objects, classes. From each, every function, class and
    constant of ours that it names is followed, and what those name in turn; but not
    `without`, nor this package, `src.common`: it logs, finds and keeps, none of which
    changes a result.
    """
    found: dict[str, str] = {}
    seen = {_identity(thing) for thing in without}
    waiting = [_piece(root) for root in roots]
    while waiting:
        thing, owner = waiting.pop()
        if _identity(thing) in seen or not _is_ours(thing):
            continue
        seen.add(_identity(thing))
        tree = _tree(inspect.getsource(thing))
        name = f"the code of {thing.__qualname__}"
        # where two have the same name, the hash is of both
        found[name] = text_hash(found.get(name, "") + repr(_plain(tree)))
        for used, value in _names(tree, thing, owner):
            piece, whose = _piece(value, owner if used.startswith("self.") else None)
            if inspect.isfunction(piece) or inspect.isclass(piece):
                waiting.append((piece, whose))
            elif (text := _constant(value)) is not None:
                found[f"the value of {used}"] = text_hash(text)
    return dict(sorted(found.items()))


def _piece(thing: object, owner: type | None = None) -> tuple[object, type | None]:
    """A function or class without its wrappers; for a method, whose it is."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    if inspect.ismethod(thing):
        one = thing.__self__
        owner, thing = one if inspect.isclass(one) else type(one), thing.__func__
    return inspect.unwrap(thing), owner


def _identity(thing: Callable) -> tuple[str, str]:
    thing, _ = _piece(thing)
    return thing.__module__, thing.__qualname__


def _is_ours(thing: Callable) -> bool:
    if thing.__module__ == "__main__":
        return True  # a notebook's cell
    if thing.__module__.startswith(f"{__package__}."):
        return False
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    return file is not None and not any(
        Path(file).resolve().is_relative_to(folder) for folder in LIBRARIES
    )


def _names(
    tree: ast.Module, thing: Callable, owner: type | None
) -> Iterator[tuple[str, object]]:
    """What a piece of code names, and what that is: `f`, `module.f`, `self.f`."""
    scope = getattr(thing, "__globals__", None) or vars(sys.modules[thing.__module__])
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in scope:
                yield name, scope[name]
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if owner:
                if hasattr(owner, name):
                    yield f"self.{name}", getattr(owner, name)
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                if isinstance(scope.get(module), ModuleType):
                    yield name, getattr(scope[module], name, None)


def _constant(value: object) -> str | None:
    """A constant as text; None for what is none."""
    if isinstance(value, SIMPLE):
        return repr(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in fields(value)]
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    parts = [_constant(item) for item in value]
    if None in parts:
        return None
    return repr(sorted(parts) if isinstance(value, set | frozenset) else parts)


def _tree(source: str) -> ast.Module:
    """The syntax tree without docstrings, and without the type hints of functions."""
    tree = ast.parse(textwrap.dedent(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
        elif isinstance(node, ast.AnnAssign):
            # a dataclass needs its fields' hints, but not to know what they mean
            node.annotation = ast.Constant(ast.unparse(node.annotation))
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest
    return tree


def _plain(node: object) -> object:
    """A tree as nested tuples; what is empty is left out, as versions differ in it."""
    if isinstance(node, list):
        return tuple(map(_plain, node))
    if not isinstance(node, ast.AST):
        return node
    parts = ((name, _plain(value)) for name, value in ast.iter_fields(node))
    kept = (part for part in parts if part[1] not in (None, ()) and part[0] != "kind")
    return type(node).__name__, *kept
