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
    r"""`format(value, spec)`; in the e format as a TeX formula: 3.6 \cdot 10^{-15}."""
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
    block = rf"(<!-- {name}(?:: ([^>]*))? -->\n).*?(<!-- /{name} -->)"
    return re.sub(block, lambda m: m[1] + content(m[2] or "") + m[3], text, flags=re.S)


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
    for path in (changed := outdated(texts, root)):
        write_text(root / path, texts[path])
    return list(changed)
