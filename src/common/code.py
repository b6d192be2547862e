"""What code does: its syntax, whatever its comments, docstrings, type hints and layout.

It decides whether something kept is out of date (kept.py), or a notebook (results.py).
No library tells what a function depends on, so the names in its source do.
"""

import ast
import functools
import hashlib
import inspect
import linecache
import math
import symtable
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

#: Code in folders of these names, or in Python's own, is not ours.
LIBRARIES = {"site-packages", "dist-packages"}
STANDARD = Path(sysconfig.get_path("stdlib")).resolve()


def syntax_hash(source: str) -> str:
    """SHA-256 of the syntax of some source, the same in every version of Python."""
    return text_hash(repr(_plain(_tree(source))))


def text_hash(text: str) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def code_of(*roots: Callable, without: tuple = ()) -> dict[str, str]:
    """The code that runs when `roots` do: a hash of each piece, by its name.

    roots: functions, methods of objects, classes. Every function, class and constant of
    ours that they name is followed, and what those name in turn; but not `without`, nor
    this package, `src.common`: it logs, finds and keeps, which changes no result.
    Names are followed as `f`, `module.f` and `self.f`, not through other variables.
    """
    found: dict[str, set[str]] = {}
    seen = {_piece(thing)[0] for thing in without}
    waiting = [_piece(root) for root in roots]
    while waiting:
        thing, owner = waiting.pop()
        if thing in seen or not _is_ours(thing):
            continue
        seen.add(thing)
        source = _source(thing)
        name = f"the code of {thing.__qualname__}"
        found.setdefault(name, set()).add(syntax_hash(source))
        for used, value in _names(source, thing, owner):
            code: list[Callable] = []
            text = _constant(value, code)
            if text is not None and value not in code:
                found.setdefault(f"the value of {used}", set()).add(text_hash(text))
            whose = owner if used.startswith("self.") else None
            waiting += [_piece(each, whose) for each in code]
    # two pieces or values of one name count both
    return {name: "+".join(sorted(found[name])) for name in sorted(found)}


def _piece(thing: object, owner: type | None = None) -> tuple[object, type | None]:
    """A function or class without its wrappers; for a method, whose it is too."""
    if inspect.ismethod(thing):
        one = thing.__self__
        owner, thing = one if inspect.isclass(one) else type(one), thing.__func__
    return inspect.unwrap(thing), owner


def _source(thing: Callable) -> str:
    """The source of a function or class, also of a class in a notebook's cell.

    Of such a class Python before 3.13 knows no file, but of its methods it does.
    """
    if inspect.isclass(thing) and thing.__module__ == "__main__":
        methods = map(inspect.unwrap, filter(inspect.isfunction, vars(thing).values()))
        for file in {method.__code__.co_filename for method in methods}:
            for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
                if isinstance(node, ast.ClassDef) and node.name == thing.__name__:
                    return ast.unparse(node)
    return textwrap.dedent(inspect.getsource(thing))


def _is_ours(thing: Callable) -> bool:
    if thing.__module__ == "__main__":
        return True  # a notebook's cell
    file = getattr(sys.modules.get(thing.__module__), "__file__", None)
    if file is None or thing.__module__.startswith(f"{__package__}."):
        return False
    path = Path(file).resolve()
    return not (LIBRARIES & set(path.parts) or path.is_relative_to(STANDARD))


def _outer_names(table: symtable.SymbolTable) -> set[str]:
    """The names that a scope, and those within it, look up outside of them."""
    names = {s.get_name() for s in table.get_symbols() if s.is_global()}
    return names.union(*map(_outer_names, table.get_children()))


def _names(source: str, thing: Callable, owner: type | None) -> Iterator[tuple]:
    """What a piece of code names, and what that is: `f`, `module.f`, `self.f`."""
    outer = _outer_names(symtable.symtable(source, "", "exec"))
    scope = vars(sys.modules[thing.__module__])
    if inspect.isfunction(thing):
        scope = {**thing.__globals__, **inspect.getclosurevars(thing).nonlocals}
    for node in ast.walk(_tree(source)):
        match node:
            case ast.Name(id=name) if name in scope and name in outer:
                yield name, scope[name]
            case ast.Attribute(value=ast.Name(id="self"), attr=name) if owner:
                if hasattr(owner, name):
                    yield f"self.{name}", getattr(owner, name)
            case ast.Attribute(value=ast.Name(id=module), attr=name):
                if isinstance(scope.get(module), ModuleType):
                    yield name, getattr(scope[module], name, None)


def _constant(value: object, code: list[Callable]) -> str | None:
    """A constant as text; None for what is none. `code` gets what of it is code."""
    piece, _ = _piece(value)
    if inspect.isfunction(piece) or inspect.isclass(piece):
        code.append(value)
        return piece.__qualname__
    if hasattr(value, "tolist") and math.prod(value.shape) <= 1000:
        value = value.tolist()  # a larger array is data, which is no matter of code
    if isinstance(value, int | float | str | bytes | None):
        return repr(value)
    if isinstance(value, functools.partial):
        value = [value.func, value.args, value.keywords]
    elif is_dataclass(value):
        value = [type(value), *(getattr(value, field.name) for field in fields(value))]
    elif isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if not isinstance(value, list | tuple | set | frozenset):
        return None
    parts = [_constant(item, code) for item in value]
    if None in parts:
        return None
    return repr(sorted(parts) if isinstance(value, set | frozenset) else parts)


def _tree(source: str) -> ast.Module:
    """The syntax tree without docstrings and type hints."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for hint in ("annotation", "returns"):
            if hasattr(node, hint):
                setattr(node, hint, None)
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
