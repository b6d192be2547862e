"""`data/results.json`: every measured figure that the prose of this project quotes.

Each notebook records its own sections with `record_results`; README and answers read
them with `read_results`. With them goes a fingerprint of the code that produced them,
so that outputs older than their code can be told.
"""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from src.common.code import syntax_hash
from src.common.files import write_text
from src.common.project import RESULTS, ROOT


def read_results(path: Path = RESULTS) -> dict:
    """All recorded results; an empty dict where none were recorded yet.

    Raises ValueError when the file is not JSON, saying what to do.
    """
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path.name} is not valid JSON ({error}); "
            "delete it and run `python3 -m src run`"
        ) from error


def record_results(notebook: str, path: Path = RESULTS, **sections: dict) -> None:
    """Replace the given sections, keep all others, and note which code made them.

    notebook: its short name, "q1", "q2" or "q3".
    sections: one JSON-serialisable dict each, e.g. `convolution={...}`.
    """
    everything = read_results(path) | sections
    everything["code"] = everything.get("code", {}) | {notebook: imported_code()}
    everything["cells"] = everything.get("cells", {}) | {notebook: executed_cells()}
    text = json.dumps(everything, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def imported_code() -> dict[str, str]:
    """The `syntax_hash` of each `src` module that this process has imported, by path.

    So a comment, a docstring or another layout does not make outputs out of date.
    """
    files = (
        Path(module.__file__)
        for name, module in list(sys.modules.items())
        if (name == "src" or name.startswith("src."))
        and getattr(module, "__file__", None)
    )
    return {
        file.relative_to(ROOT).as_posix(): syntax_hash(file.read_text(encoding="utf-8"))
        for file in sorted(files)
    }


def executed_cells() -> str | None:
    """The `cells_hash` of all that this kernel has executed; None outside a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return cells_hash(shell.history_manager.input_hist_raw[1:]) if shell else None


def cells_hash(sources: Iterable[str]) -> str:
    """SHA-256 of the cells' sources, which IPython keeps without line ends."""
    text = "\0".join(source.rstrip("\n") for source in sources)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
