"""A log with one live line: progress while it runs, one clean line a step afterwards.

In a notebook the whole log is a single output area that is updated in place, so that a
saved notebook holds the finished lines and nothing else: no widget, no stderr. In a
terminal finished lines are printed and the live line is tqdm's own.
"""

import io
import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class LiveLog:
    """Finished lines, and below them one line that moves.

    >>> log = LiveLog("epoch  loss")
    >>> for epoch in range(3):
    ...     for batch in log.track(batches, f"epoch {epoch}"): ...
    ...     log.line(f"{epoch:5d}  {loss:.3f}")
    """

    def __init__(self, header: str = "", *, keep: bool = True) -> None:
        """header: the first finished line. keep: False drops all finished lines, so
        that only the live one is ever seen."""
        self._keep = keep
        self._lines: list[str] = []
        self._display = None  # made with the first text: an unused log shows nothing
        if header:
            self.line(header)

    def line(self, text: str) -> None:
        """Add a finished line, above the live one if there is one."""
        if not self._keep:
            return
        self._lines.append(text)
        if _in_notebook():
            self._show()
        else:
            with tqdm.external_write_mode():  # does not break a live line
                print(text, flush=True)

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        """Yield `items` unchanged while the live line tells how far they are.

        However the loop ends (break, error), the live line goes with it.
        """
        file = _LiveLine(self) if _in_notebook() else sys.stderr
        with tqdm(
            items,
            description,
            total,
            file=file,
            leave=False,
            ascii=True,
            ncols=80,
            mininterval=0.5,
        ) as bar:
            try:
                yield from bar
            finally:
                if _in_notebook():
                    self._show()

    def _show(self, live: str = "") -> None:
        from IPython.display import display

        text = "\n".join([*self._lines, live] if live else self._lines)
        bundle = {"text/plain": text}
        if self._display is None:
            if text:
                self._display = display(bundle, raw=True, display_id=True)
        else:
            self._display.update(bundle, raw=True)


class _LiveLine(io.TextIOBase):
    """The file that tqdm writes to: its latest text becomes the log's live line."""

    def __init__(self, log: LiveLog) -> None:
        self._log = log

    def write(self, text: str) -> int:
        if text.strip():
            self._log._show(text.strip("\r\n "))
        return len(text)


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")
