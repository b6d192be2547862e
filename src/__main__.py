"""The commands of this project: `python3 -m src run` and others.

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
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from src.commands import environment
from src.common.project import ROOT

#: What `run --fast` leaves out of its copy: caches, the whole data set, leftovers.
NOT_COPIED = ("cache", "cifar-10-*", "*.tmp*", "__pycache__", ".ipynb_checkpoints")


def run(args: list[str]) -> int:
    """Execute the notebooks top to bottom and save them with their outputs."""
    parser = argparse.ArgumentParser(prog="python3 -m src run", description=run.__doc__)
    add = parser.add_argument
    add("--fast", action="store_true", help="a trial on the sample, in a copy of all")
    add("--retrain", action="store_true", help="train the three-block network anew")
    add(
        "--only",
        metavar="q1|q2|q3",
        action="extend",
        type=lambda text: text.split(","),
        help="execute only these (comma-separated, or repeated)",
    )
    options = parser.parse_args(args)
    if unknown := set(options.only or ()) - {"q1", "q2", "q3"}:
        parser.error(f"--only takes q1, q2 and q3, not {', '.join(sorted(unknown))}")

    environment.ensure()
    from src import cifar10
    from src.commands import answers, notebooks

    # The first import ever lists the fonts, with a warning for no notebook to keep.
    importlib.import_module("matplotlib.font_manager")
    variables = {
        "MAMAN13_FAST": str(int(options.fast)),
        "MAMAN13_RETRAIN": str(int(options.retrain)),
    }
    try:
        if not options.fast:
            print(f"data: {cifar10.load(train=False).provenance}", flush=True)
        with _copy() if options.fast else nullcontext(ROOT) as root:
            for short, name in notebooks.NAMES.items():
                if not options.only or short in options.only:
                    print(f"{name} ...", flush=True)
                    done = notebooks.execute(Path(root, "notebooks", name), variables)
                    print(f"  {done.cells} cells, {done.seconds:.1f} s", flush=True)
                    for flaw in done.flaws:
                        print(f"WARNING: {name}: {flaw}", flush=True)
    except (cifar10.DataUnavailable, notebooks.NotebookFailed) as error:
        return _fail(error)
    if options.fast:
        print("A trial on the embedded sample: nothing here was changed.")
        return 0
    print("The outputs are in notebooks/, all measured figures in data/results.json.")
    try:
        for page in answers.write():
            print(f"{page} brought up to date")
    except ValueError as error:  # e.g. after --only, with nothing recorded before
        print(f"The written answers stay as they are: {error}")
    return 0


def _copy() -> tempfile.TemporaryDirectory:
    """A temporary copy of what the notebooks need, to be removed at the end."""
    copy = tempfile.TemporaryDirectory(prefix="maman13-", ignore_cleanup_errors=True)
    ignore = shutil.ignore_patterns(*NOT_COPIED)
    for name in ("notebooks", "src", "data", "answers"):
        shutil.copytree(ROOT / name, Path(copy.name, name), ignore=ignore)
    return copy


def test(args: list[str]) -> int:
    """Run pytest with these arguments; without any, two files of tests at a time."""
    environment.ensure(everything=True)
    import pytest

    os.chdir(ROOT)
    if not args:  # the threads of two processes would wait for each other
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return int(pytest.main(args or ["-n", "2", "--dist", "loadfile"]))


def module(name: str, everything: bool, args: list[str]) -> int:
    """Run `main(args)` of a module; everything: of environment.ensure."""
    environment.ensure(everything=everything)
    return importlib.import_module(f"src.{name}").main(args) or 0


benchmark = partial(module, "commands.benchmark", False)
vision = partial(module, "vision_tasks.command", False)
submit = partial(module, "commands.submission", True)
#: name: (what it does, the function that does it and returns the exit status)
COMMANDS = {
    "run": ("execute the three notebooks and save their outputs", run),
    "test": ("run the tests, or pytest with other arguments", test),
    "benchmark": ("measure question 3's speed and memory", benchmark),
    "vision": ("train and measure the guide to twelve vision tasks", vision),
    "submit": ("check everything and pack the ZIP to hand in", submit),
}
if not (ROOT / "tests").exists():  # handed in: without tests and guide, and only once
    COMMANDS = {name: COMMANDS[name] for name in ("run", "benchmark")}
#: What may be wrong with a disk.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def main(argv: list[str]) -> int:
    """Carry out one command; returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console that can't show Hebrew, say
    parser = argparse.ArgumentParser(prog="python3 -m src")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, (what, _) in COMMANDS.items():
        commands.add_parser(name, help=what)
    name = parser.parse_args(argv[:1]).name
    try:
        environment.check_python()
        return COMMANDS[name][1](argv[1:])
    except (environment.SetupError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DISK:
            raise
        return _fail(error)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
        return 130


def _fail(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
