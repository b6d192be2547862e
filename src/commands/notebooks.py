"""Executing the notebooks: fresh kernels, live progress, saved only when whole.

A notebook is run by a kernel of this very Python, whatever kernels are registered on
the machine, with `notebooks/` as its working directory. Only when its last cell has
finished without error is the file replaced, cleaned of all that differs from one
machine to the next.
"""

import asyncio
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

from src.common.files import write_text
from src.common.project import ROOT

#: The notebooks by their short names, in the order in which they run.
NAMES = {
    "q1": "q1_convolution.ipynb",
    "q2": "q2_backpropagation.ipynb",
    "q3": "q3_transfer_learning.ipynb",
}
#: What every kernel is started with, besides what the command adds.
KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}
WIDGET = "application/vnd.jupyter.widget-view+json"
#: Folders that tell on whose machine a notebook ran.
PRIVATE_FOLDERS = r"/(?:home|root|tmp|work|Users|private|content)\b|[A-Z]:\\+Users"


class NotebookFailed(RuntimeError):
    """A notebook did not run to its end; its file is as it was before."""


@dataclass(frozen=True)
class Execution:
    """How one notebook went. `flaws`: what should not be in a saved notebook."""

    name: str
    cells: int
    seconds: float
    flaws: tuple[str, ...]


def execute(path: Path, environment: Mapping[str, str] | None = None) -> Execution:
    """Run all cells of a notebook in a fresh kernel and save it in place.

    environment: variables of the kernel, added to this process's.
    Raises NotebookFailed, with the file untouched, when a cell fails, the kernel dies,
    or the result can't be saved; KeyboardInterrupt once the kernel has stopped.
    """
    notebook = _read(path)
    try:  # before the work rather than after it
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise NotebookFailed(f"can't write to {path.parent}: {error}") from error

    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner,
    ):
        client = _Client(notebook, path.stem, Path(scratch))
        runner.run(client.run(path.parent, environment or {}))
    seconds = time.monotonic() - started

    clean(notebook)
    try:
        write_text(path, nbformat.writes(notebook) + "\n")
    except OSError as error:
        raise NotebookFailed(
            f"{path.name} ran to its end but could not be saved: {error}. "
            "The file is as it was before."
        ) from error
    return Execution(path.stem, client.total, seconds, tuple(flaws(notebook)))


def _read(path: Path) -> nbformat.NotebookNode:
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except FileNotFoundError as error:
        raise NotebookFailed(f"there is no {path}") from error
    except Exception as error:  # of whatever kind the malformed content leads to
        raise NotebookFailed(
            f"{path} is not a valid notebook: restore it (git checkout {path.name})"
        ) from error
    return notebook


# The kernel --------------------------------------------------------------------------


class _ThisPython(KernelSpecManager):
    """Whatever kernel a notebook names, it gets this interpreter."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        launch = [
            "-m",
            "ipykernel_launcher",
            "-f",
            "{connection_file}",
            "--log-level=40",
        ]
        return KernelSpec(
            argv=[sys.executable, *launch],
            display_name="Python 3",
            language="python",
        )


class _Client(NotebookClient):
    """nbclient with a live line in the terminal and an orderly stop on Ctrl-C."""

    def __init__(
        self, notebook: nbformat.NotebookNode, name: str, scratch: Path
    ) -> None:
        logging.getLogger("traitlets").setLevel(logging.CRITICAL)  # we say it ourselves
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=_ThisPython(),
            connection_file=str(scratch / "kernel.json"),
        )
        super().__init__(
            notebook,
            km=manager,
            record_timing=False,
            store_widget_state=False,
            startup_timeout=180,
            iopub_timeout=60,
        )
        self.name = name
        self.scratch = scratch
        self.total = sum(map(_is_executed, notebook.cells))
        self.line = LiveLine()
        self.latest = ""
        self.started = time.monotonic()

    async def run(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Execute all cells in order. Raises NotebookFailed or CancelledError."""
        variables = os.environ | KERNEL_ENVIRONMENT | environment
        variables["IPYTHONDIR"] = str(self.scratch)  # nobody's start-up files
        ticking = asyncio.create_task(self._tick())
        try:
            with open(self._log, "wb") as log:
                await self.async_start_new_kernel(
                    cwd=str(folder), env=variables, stdout=log, stderr=log
                )
            await self.async_start_new_kernel_client()
            for index, cell in enumerate(self.nb.cells):
                self.latest = ""
                await self.async_execute_cell(
                    cell, index, execution_count=self.code_cells_executed + 1
                )
        except CellExecutionError as error:
            raise NotebookFailed(self._cell_failed(error)) from None
        except (DeadKernelError, RuntimeError, asyncio.CancelledError) as error:
            if asyncio.current_task().cancelling():  # Ctrl-C, as nbclient disguises it
                await self._interrupt()
                raise asyncio.CancelledError from None
            raise NotebookFailed(await self._kernel_died(error)) from error
        finally:
            ticking.cancel()
            self.line.clear()
            if self.km is not None:
                await self._async_cleanup_kernel()

    async def _interrupt(self) -> None:
        """Let the cell clean up after itself before the kernel is shut down."""
        self.line.show(f"{self.name}  stopping the kernel ...")
        with suppress(Exception):
            await self.km.interrupt_kernel()
            await self.kc.shell_channel.get_msg(timeout=10)

    def process_message(self, msg: dict, cell: dict, cell_index: int) -> object:
        """Besides what nbclient does, keep the last line that the cell has shown."""
        content = msg["content"]
        text = content.get("text") or content.get("data", {}).get("text/plain")
        if msg["msg_type"] in _SHOWN and text and text.strip():
            self.latest = text.strip().splitlines()[-1]
        return super().process_message(msg, cell, cell_index)

    async def _tick(self) -> None:
        """Refresh the live line twice a second."""
        while True:
            number = f"cell {self.code_cells_executed}/{self.total}"
            elapsed = _clock(time.monotonic() - self.started)
            self.line.show(f"{self.name}  {number}  {elapsed}  {self.latest}")
            await asyncio.sleep(0.5)

    @property
    def _log(self) -> Path:
        """What the kernel's process prints outside of any cell."""
        return self.scratch / "kernel.log"

    def _where(self) -> str:
        cells = filter(_is_executed, self.nb.cells)
        source = [cell.source for cell in cells][max(self.code_cells_executed - 1, 0)]
        first = source.strip().splitlines()[0]
        return f"code cell {self.code_cells_executed} of {self.total} (`{first}`)"

    def _cell_failed(self, error: CellExecutionError) -> str:
        trace = error.traceback
        if not self.line.moves:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", trace)
        return (
            f"{self.name} failed in {self._where()}; the file is as it was before.\n"
            f"{trace.strip()}"
        )

    async def _kernel_died(self, error: Exception) -> str:
        status = None
        if self.km is not None and self.km.provisioner is not None:
            status = await self.km.provisioner.poll()
        if self.code_cells_executed == 0:
            message = f"{self.name}: the kernel did not start ({error})."
        else:
            likely = "Most likely" if status == -9 else "Often"
            message = (
                f"{self.name}: the kernel died in {self._where()}, exit status "
                f"{status}; the file is as it was before. {likely} this is a shortage "
                "of memory: close other programs and run the command again."
            )
        said = self._log.read_text("utf-8", "replace").strip().splitlines()[-15:]
        return "\n".join([message, *said])


_SHOWN = {"stream", "display_data", "update_display_data", "execute_result"}


def _is_executed(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "code" and bool(cell.source.strip())


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}"


class LiveLine:
    """A terminal's last line, overwritten in place; in a file, one line a minute."""

    def __init__(self) -> None:
        self.moves = sys.stdout.isatty()
        self._printed = time.monotonic()

    def show(self, text: str) -> None:
        """Replace the line by this text, cut to the terminal's width."""
        if self.moves:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + text[:width].ljust(width), end="", flush=True)
        elif time.monotonic() - self._printed >= 60:
            self._printed = time.monotonic()
            print(text, flush=True)

    def clear(self) -> None:
        """Leave the line empty, for what is printed next."""
        if self.moves:
            width = shutil.get_terminal_size().columns - 1
            print("\r" + " " * width, end="\r", flush=True)


# What is saved -----------------------------------------------------------------------


def clean(notebook: nbformat.NotebookNode) -> None:
    """Remove what differs between machines or runs, in place.

    Metadata is reduced to the kernel's language and the cells' tags; pieces of one
    stream that arrived separately are joined, and lines overwritten by a carriage
    return are dropped; widgets keep only their text.
    """
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {
                "display_name": "Python 3",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        }
    )
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):  # no ids before that
        notebook.nbformat_minor = 5
        for number, cell in enumerate(notebook.cells):
            cell.id = f"cell-{number:02d}"
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type != "code":
            continue
        outputs = []
        for output in cell.outputs:
            previous = outputs[-1] if outputs else {}
            if output.output_type == "stream":
                if previous.get("name") == output.name:
                    previous.text += output.text
                    continue
            elif "data" in output:
                output.data.pop(WIDGET, None)
                if output.data == {"text/plain": ""}:  # a log without finished lines
                    continue
            outputs.append(output)
        for output in outputs:
            if output.output_type == "stream":
                output.text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
        cell.outputs = outputs


def flaws(notebook: nbformat.NotebookNode) -> list[str]:
    """What should not stand in a notebook that is handed in, one sentence each.

    Cells that failed or were not executed in order, error output, widgets, and paths
    of the machine on which it ran.
    """
    found = []
    paths = PRIVATE_FOLDERS
    for folder in (ROOT, Path.home()):
        if len(folder.parts) > 1:
            paths += "|" + re.escape(str(folder))
    if "widgets" in notebook.metadata:
        found.append("it holds widget metadata")
    executed = [cell for cell in notebook.cells if _is_executed(cell)]
    counts = [cell.execution_count for cell in executed]
    if counts != list(range(1, len(executed) + 1)):
        found.append(f"its cells were not executed in order, once each: {counts}")
    for number, cell in enumerate(notebook.cells, 1):
        text = cell.source
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {number} failed: {output.ename}: {output.evalue}")
            if output.get("name") == "stderr":
                found.append(f"cell {number} has error output: {output.text.strip()}")
            if WIDGET in output.get("data", {}):
                found.append(f"cell {number} shows a widget")
            shown = output.get("data", {})
            pieces = [v for k, v in shown.items() if not k.startswith("image/p")]
            text += "\n".join(map(str, ["", *pieces, output.get("text", "")]))
        if path := re.search(rf"(?<![\w.])(?:{paths})\S*", text):
            found.append(f"cell {number} names a path of this machine: {path[0]}")
    return found
