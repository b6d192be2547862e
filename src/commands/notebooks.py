"""Executing the notebooks: fresh kernels, live progress, saved only when whole."""

import atexit
import logging
import os
import re
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import preprocessors
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from tqdm import tqdm

from src.common.files import write_text
from src.common.project import ROOT

#: Variables of every kernel; IPYTHONDIR is a new folder, without start-up files.
VARIABLES = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "MPLBACKEND": "inline"}
VARIABLES["JPY_SESSION_NAME"] = ""  # of a notebook in which the command was typed
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
LINE = "{desc}: cell {n_fmt}/{total_fmt} |{bar:10}| {elapsed}{postfix}"
#: Folders that tell on whose machine a notebook ran.
PRIVATE_FOLDERS = r"/(?:home|root|tmp|work|Users|private|content)\b|[A-Z]:\\+Users"


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; its file is as it was before."""


@dataclass(frozen=True)
class Execution:
    """How one notebook went. `flaws`: what should not be in it, or was left out."""

    cells: int
    seconds: float
    flaws: tuple[str, ...]


def execute(path: Path, environment: dict[str, str] | None = None) -> Execution:
    """Run all cells in a fresh kernel, with more variables, and save them in place.

    Raises NotebookFailed or, once the kernel has stopped, KeyboardInterrupt.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # of whatever kind malformed content leads to
        raise NotebookFailed(f"{path} is no valid notebook: restore it") from error
    started = time.monotonic()
    cells = _run(notebook, path, environment or {})
    found = clean(notebook) + flaws(notebook)
    write_text(path, nbformat.writes(notebook) + "\n")
    return Execution(cells, time.monotonic() - started, tuple(found))


class _Client(NotebookClient):
    """nbclient with this very Python as the kernel, and a live line."""

    def create_kernel_manager(self) -> AsyncKernelManager:
        specs = KernelSpecManager(kernel_dirs=[])  # no registered one
        self.km = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
        return self.km

    def process_message(self, msg: dict, cell: NotebookNode, cell_index: int) -> object:
        """Besides what nbclient does, show the last line that the cell has shown."""
        content = msg["content"]
        text = content.get("text") or content.get("data", {}).get("text/plain") or ""
        if text.strip():
            self.line.set_postfix_str(text.strip().splitlines()[-1])
        return super().process_message(msg, cell, cell_index)


def _run(notebook: NotebookNode, path: Path, environment: dict[str, str]) -> int:
    """Execute all cells in order; returns how many there are."""
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # we say it ourselves
    total = sum(map(_is_executed, notebook.cells))
    client = _Client(notebook, iopub_timeout=60, extra_arguments=["--log-level=40"])
    look = {"leave": False, "disable": None, "bar_format": LINE}  # None: if no terminal
    client.line = tqdm(desc=path.stem, total=total, file=sys.stdout, **look)
    client.on_cell_execute = lambda **_: client.line.update()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        variables = os.environ | VARIABLES | environment | {"IPYTHONDIR": scratch}
        log = Path(scratch, "kernel.log")  # what its process prints outside of cells
        try:
            with client.line, open(log, "wb") as out:
                client.execute(cwd=path.parent, env=variables, stdout=out, stderr=out)
            return total
        except CellExecutionError as error:
            why = strip_ansi(str(error))
        except (RuntimeError, AssertionError) as error:  # the latter after Ctrl-C
            why = f"{error}: out of memory?\n{log.read_text('utf-8', 'replace')}"
    atexit.unregister(client._cleanup_kernel)  # which nbclient may leave behind
    if hasattr(client, "_async_cleanup_kernel_future"):  # nbclient's answer to Ctrl-C
        raise KeyboardInterrupt
    n = client.code_cells_executed
    where = f"in code cell {n} of {total}" if n else "to start its kernel"
    raise NotebookFailed(f"{path.stem} failed {where}; the file is as it was.\n{why}")


def _is_executed(cell: NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def clean(notebook: NotebookNode) -> list[str]:
    """Remove what differs between machines or runs; a sentence for each text of it.

    These are metadata, empty logs, and what was written to stderr. Pieces of one
    stream are joined, without lines overwritten by a carriage return.
    """
    preprocessors.ClearMetadataPreprocessor().preprocess(notebook, {})
    notebook.metadata.kernelspec = KERNEL
    code = {n: c for n, c in enumerate(notebook.cells, 1) if c.cell_type == "code"}
    for cell in code.values():
        cell.outputs = [out for out in cell.outputs if out.get("data") != {}]
    preprocessors.CoalesceStreamsPreprocessor().preprocess(notebook, {})
    left_out = []
    for number, cell in code.items():
        errors = [out for out in cell.outputs if out.get("name") == "stderr"]
        cell.outputs = [out for out in cell.outputs if out not in errors]
        left_out += [f"left out of cell {number}: {o.text.strip()}" for o in errors]
    return left_out


def flaws(notebook: NotebookNode) -> list[str]:
    """What should not stand in a notebook that is handed in, one sentence each."""
    found = []
    counts = [cell.execution_count for cell in notebook.cells if _is_executed(cell)]
    if None in counts or any(a >= b for a, b in pairwise(counts)):
        found.append(f"its cells were not all executed in order: {counts}")
    own = [re.escape(str(p)) for p in (ROOT, Path.home()) if len(p.parts) > 1]
    private = re.compile(rf"(?<![\w.])(?:{'|'.join([PRIVATE_FOLDERS, *own])})\S*")
    for number, cell in enumerate(notebook.cells, 1):
        text = cell.source
        for output in cell.get("outputs", []):
            shown = {"": output.get("text", "")} | output.get("data", {})
            text += "".join(f"\n{shown[kind]}" for kind in shown if kind != "image/png")
            if output.output_type == "error":
                found.append(f"cell {number} failed: {output.ename}: {output.evalue}")
        if path := private.search(text):
            found.append(f"cell {number} names a path of this machine: {path[0]}")
    return found
