"""`data/results.json`: every measured figure that the prose of this project quotes.

Each notebook records its sections, with hashes of the code that made them.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from src.common.code import syntax_hash, text_hash
from src.common.files import write_text
from src.common.project import RESULTS, ROOT, is_copy


def read_results(path: Path = RESULTS) -> dict:
    """All recorded results; an empty dict where none were recorded yet.

    Raises ValueError when the file is not JSON, saying what to do.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        advice = "restore or delete it, and run the command again"
        raise ValueError(f"{path.name} is not valid JSON: {error}; {advice}") from error


def record_results(notebook: str, path: Path = RESULTS, **sections: dict) -> None:
    """Replace the given sections, keep all others, and note which code made them.

    A copy of a notebook, in which something is tried, changes nothing and says so.
    notebook: its short name, "q1", "q2" or "q3".
    sections: one JSON-serialisable dict each, e.g. `convolution={...}`.
    """
    if is_copy():
        print("A trial: data/results.json and answers/figures/ stay as they are.")
        return
    everything = read_results(path) | sections
    everything["code"] = everything.get("code", {}) | {notebook: imported_code()}
    everything["cells"] = everything.get("cells", {}) | {notebook: executed_cells()}
    text = json.dumps(everything, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def imported_code() -> dict[str, str]:
    """The `syntax_hash` of each `src` module that this process imported, by path."""
    ours = [sys.modules[n] for n in sorted(sys.modules) if n.split(".")[0] == "src"]
    files = [Path(one.__file__) for one in ours if getattr(one, "__file__", None)]
    names = [file.relative_to(ROOT).as_posix() for file in files]
    hashes = [syntax_hash(file.read_text("utf-8")) for file in files]
    return dict(zip(names, hashes, strict=True))


def executed_cells() -> str | None:
    """The `cells_hash` of all that this kernel has executed; None outside a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return cells_hash(shell.history_manager.input_hist_raw[1:]) if shell else None


def cells_hash(sources: Iterable[str]) -> str:
    """SHA-256 of the cells' sources, which IPython keeps without line ends."""
    return text_hash("\0".join(source.rstrip("\n") for source in sources))
