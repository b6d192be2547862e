"""What is wrong with a notebook, or with the link to the video, as it is handed in."""

import re
from pathlib import Path

from nbformat import NotebookNode

from src.common.code import syntax_hash
from src.common.results import cells_hash

VIDEO_LINK = "answers/video_link.txt"


def stale(notebook: NotebookNode, short: str, figures: dict, root: Path) -> list[str]:
    """What has changed since the notebook was executed, in one sentence or none.

    Told by hashes, for which comments and docstrings of a module don't count. Of the
    cells, those up to the one that records the results: what follows it is free.
    short: the notebook's short name. figures: all of results.json. root: the project.
    """
    recorded = figures.get("code", {}).get(short)
    if not recorded:
        return ["data/results.json holds nothing from it"]
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    cells = list(filter(str.strip, cells))
    hashes = [cells_hash(cells[: n + 1]) for n in range(len(cells))]
    if figures.get("cells", {}).get(short) not in hashes:
        return ["its cells are not those that were executed, once each and in order"]
    changed = [n for n in sorted(recorded) if _hash(root / n) != recorded[n]]
    return [f"its outputs are older than {', '.join(changed)}"] if changed else []


def _hash(module: Path) -> str | None:
    """The hash of a module's syntax; None if it is not there or broken."""
    try:
        return syntax_hash(module.read_text(encoding="utf-8"))
    except (FileNotFoundError, SyntaxError):
        return None


def fill_in(notebook: NotebookNode, label: str, value: str) -> bool:
    """Write a value, if any, into the row `| label | |` of a notebook's first cell.

    Returns whether the row holds one now.
    """
    row = re.compile(rf"^\|[ \t]*{label}[ \t]*\|(.*)\|[ \t]*$", re.MULTILINE)
    cell = notebook.cells[0]
    if value := " ".join(value.split()).replace("|", r"\|"):
        cell.source = row.sub(lambda _: f"| {label} | {value} |", cell.source, count=1)
    match = row.search(cell.source)
    return bool(match and match[1].strip(" \t_"))


def link_problem(video: str) -> str | None:
    """What is wrong with the link to the video, or None."""
    if not video:
        return f"no link to the video: give --video URL or write it into {VIDEO_LINK}"
    host = r"(?:[^\s/?#@]+@)?[\w-]+(?:\.[\w-]+)+(?::\d+)?"
    if not re.fullmatch(rf"https?://{host}(?:[/?#]\S*)?", video, re.IGNORECASE):
        return f"the link to the video, {video!r}, is no http(s) address with a host"
    return None
