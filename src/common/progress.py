"""A log with one live line: progress while it runs, one clean line a step afterwards.

In a notebook the log is one output area, updated in place: what is saved are the
finished lines, without the widget or stderr that tqdm leaves there. Without a finished
line it is an output of no kind, for which no front end draws anything.
"""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
LOOK = "{desc}: {n_fmt}/{total_fmt} |{bar:10}| {elapsed}<{remaining}{postfix}"


class LiveLog:
    """Finished lines, and below them one line that moves."""

    def __init__(self, *, keep: bool = True) -> None:
        """keep: whether to show finished lines."""
        self._keep = keep
        self._lines: list[str] = []
        self._display = None  # made with the first text: an unused log shows nothing
        self._bar: tqdm | None = None

    def line(self, text: str) -> None:
        """Add a finished line, above the live one if there is one."""
        if not self._keep:
            return
        self._lines.append(text)
        if _in_notebook():
            self.show()
        else:
            with tqdm.external_write_mode():  # does not break a live line
                print(text, flush=True)

    def track(
        self, items: Iterable[Item], description: str, total: int | None = None
    ) -> Iterator[Item]:
        """Yield `items` while a live line says how far; it goes however that ends."""
        bar = partial(_NotebookBar, self) if _in_notebook() else tqdm
        options = {"leave": False, "ascii": True, "ncols": 80, "mininterval": 0.5}
        outer = self._bar
        with bar(items, description, total, bar_format=LOOK, **options) as self._bar:
            try:
                yield from self._bar
            finally:
                self._bar = outer

    def status(self, text: str = "") -> None:
        """Say how things stand: behind the bar of `track`, or as the live line itself.

        The latter stays until the next call, in a notebook; elsewhere it is printed.
        """
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)  # drawn with the next step
        elif _in_notebook():
            self.show(text)
        elif text:
            print(text, flush=True)

    def show(self, live: str = "") -> None:
        """Bring the output area of a notebook's cell up to date."""
        from IPython.display import display

        text = "\n".join([*self._lines, live] if live else self._lines)
        if self._display is not None:
            self._display.update({"text/plain": text} if text else {}, raw=True)
        elif text:
            self._display = display({"text/plain": text}, raw=True, display_id=True)


class _NotebookBar(tqdm):
    """A bar that is its log's live line; `display` is tqdm's hook for that."""

    def __init__(self, log: LiveLog, *args: object, **options: object) -> None:
        self.log = log
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        self.log.show(str(self) if msg is None else msg)


def _in_notebook() -> bool:
    """Whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython and ipython.get_ipython(), "kernel")
