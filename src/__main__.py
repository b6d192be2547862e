"""The commands of this project: `python3 -m src run`, `python3 -m src test`, ...

Standard library only at import, so that they work on a bare Python: the first thing
that each does is to make sure of the packages (see environment.py).
"""

from __future__ import annotations  # an older Python gets as far as check_python

import argparse
import errno
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from src.commands import environment
from src.common.project import ROOT

#: What `run --fast` leaves out of its copy: caches, the whole data set, leftovers.
NOT_COPIED = ("cache", "cifar-10-*", "*.tmp*", "__pycache__", ".ipynb_checkpoints")


def run(args: list[str]) -> int:
    """Execute the notebooks, in place or (--fast) in a temporary copy."""
    parser = argparse.ArgumentParser(
        prog="python3 -m src run",
        description="Execute the notebooks top to bottom, each in a fresh kernel, and "
        "save them with their outputs.",
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help="try everything in a few minutes, without network, on the embedded "
        "sample, in a temporary copy: the notebooks here stay as they are",
    )
    parser.add_argument(
        "--only",
        metavar="q1|q2|q3",
        action="extend",
        type=lambda text: text.split(","),
        help="execute only these (comma-separated, or repeated)",
    )
    parser.add_argument(
        "--retrain",
        action="store_true",
        help="train the three-block network of question 3 anew, instead of loading "
        "its finished checkpoint",
    )
    options = parser.parse_args(args)
    if unknown := set(options.only or ()) - {"q1", "q2", "q3"}:
        parser.error(f"--only takes q1, q2 and q3, not {', '.join(sorted(unknown))}")

    environment.ensure()
    from src import cifar10
    from src.commands import notebooks

    # The first import ever lists the fonts, with a warning for no notebook to keep.
    importlib.import_module("matplotlib.font_manager")
    variables = {
        "MAMAN13_FAST": "1" if options.fast else "0",
        "MAMAN13_RETRAIN": "1" if options.retrain else "0",
    }
    done, failure = [], None
    try:
        if not options.fast:
            print(f"data: {cifar10.load(train=False).provenance}", flush=True)
        with _copy() if options.fast else nullcontext(ROOT) as root:
            for short, name in notebooks.NAMES.items():
                if options.only and short not in options.only:
                    continue
                print(f"{name} ...", flush=True)
                done.append(notebooks.execute(root / "notebooks" / name, variables))
                for flaw in done[-1].flaws:
                    print(f"WARNING: {name}: {flaw}", flush=True)
        if not options.fast:
            _write_answers()
    except (cifar10.DataUnavailable, notebooks.NotebookFailed) as error:
        failure = error
    finally:
        _print_table(done, options.fast)
    return _fail(failure) if failure else 0


def _write_answers() -> None:
    """Bring the written answers up to date with what the notebooks recorded."""
    from src.commands import answers

    try:
        for page in answers.write():
            print(f"{page} brought up to date", flush=True)
    except ValueError as error:  # e.g. after --only, with nothing recorded before
        print(f"The written answers stay as they are: {error}", flush=True)


def _print_table(done: list, fast: bool) -> None:
    if not done:
        return
    print(f"\n{'notebook':24}{'cells':>6}{'seconds':>9}")
    for execution in done:
        print(f"{execution.name:24}{execution.cells:6}{execution.seconds:9.1f}")
    print(
        "\nA trial on the embedded sample: nothing here was changed."
        if fast
        else "\nThe outputs are in notebooks/, all measured figures in "
        "data/results.json.",
        flush=True,
    )


@contextmanager
def _copy() -> Iterator[Path]:
    """A temporary copy of what the notebooks need, removed at the end."""
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    with tempfile.TemporaryDirectory(
        prefix="maman13-", ignore_cleanup_errors=True
    ) as folder:
        root = Path(folder)
        for name in ("notebooks", "src", "data", "answers"):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=ignore)
        yield root


def test(args: list[str]) -> int:
    """Run pytest, with the given arguments if any."""
    environment.ensure(everything=True)
    import pytest

    os.chdir(ROOT)
    return int(pytest.main(args))


def module(name: str, **options: bool) -> Callable[[list[str]], int]:
    """A command that is `main(args)` of `src/<name>.py`, imported when it is called.

    options: of environment.ensure.
    """

    def command(args: list[str]) -> int:
        environment.ensure(**options)
        return importlib.import_module(f"src.{name}").main(args) or 0

    return command


#: name: (what it does, the function that does it and returns the exit status)
COMMANDS = {
    "run": ("execute the three notebooks and save their outputs", run),
    "test": ("run the tests; arguments go to pytest", test),
    "benchmark": (
        "measure question 3's speed and memory",
        module("commands.benchmark"),
    ),
    "vision": (
        "train and measure the guide to twelve vision tasks",
        module("vision_tasks.command"),
    ),
    "submit": (
        "check everything and pack the ZIP to hand in",
        module("commands.submission", everything=True),
    ),
}
# What was handed in as a ZIP has neither the tests nor the guide, nor is it to be
# handed in again.
for _name, _needed in {
    "test": "tests",
    "vision": "src/vision_tasks",
    "submit": "answers/walkthrough.md",
}.items():
    if not (ROOT / _needed).exists():
        del COMMANDS[_name]


def main(argv: list[str]) -> int:
    """Carry out one command; returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console that can't show Hebrew, say
    parser = argparse.ArgumentParser(
        prog="python3 -m src",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s COMMAND [-h] [...]",
        epilog="\n".join(f"  {name:11}{what}" for name, (what, _) in COMMANDS.items()),
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of:")
    command = parser.parse_args(argv[:1]).command
    started = time.monotonic()
    try:
        environment.check_python()
        return COMMANDS[command][1](argv[1:])
    except environment.SetupError as error:
        return _fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        return _fail(error)
    except KeyboardInterrupt:
        minutes = (time.monotonic() - started) / 60
        print(
            f"Interrupted after {minutes:.1f} min. What was finished is kept; "
            "run the same command again to go on.",
            file=sys.stderr,
        )
        return 130


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
