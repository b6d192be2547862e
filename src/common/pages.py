"""Filled-in pages: Jinja templates, blocks in Markdown, and which are out of date."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined

from src.common.files import write_text


def templates(folder: Path) -> Environment:
    """The templates of a folder, in which `{{ figure | show(".1%") }}` is a figure.

    What is undefined is an error, and a line that ends in a tag loses its line end.
    """
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
    )
    environment.filters |= {"show": show, "values": dict.values}
    return environment


def show(value: object, spec: str) -> str:
    """`format(value, spec)`; but what the e format gives is set as a TeX formula.

    >>> show(3.6e-15, ".1e")
    '3.6 \\cdot 10^{-15}'
    """
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError, which says what is missing
    text = format(value, spec)
    if not spec.endswith("e"):
        return text
    mantissa, exponent = text.split("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if value else "0"


def fill_block(text: str, name: str, content: Callable[[str], str]) -> str:
    """A page with what stands between `<!-- name -->` and `<!-- /name -->` replaced.

    content: returns the new lines, with their line ends; it is given what follows the
        name, as "A, B" in `<!-- code: A, B -->`, or "". Not called without a block.
    """
    block = re.compile(
        rf"(<!-- {name}(?:: ([^>]*))? -->\n).*?(<!-- /{name} -->)", re.DOTALL
    )
    return block.sub(lambda match: match[1] + content(match[2] or "") + match[3], text)


def outdated(texts: Mapping[str, str], root: Path) -> dict[str, str]:
    """Those texts, by their paths in `root`, whose file is not there or differs."""
    return {
        path: text
        for path, text in texts.items()
        if not (root / path).is_file()
        or (root / path).read_text(encoding="utf-8") != text
    }


def write_outdated(texts: Mapping[str, str], root: Path) -> list[str]:
    """Write those texts whose file is not there or differs; returns their paths."""
    changed = outdated(texts, root)
    for path, text in changed.items():
        write_text(root / path, text)
    return list(changed)
