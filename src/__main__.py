"""The commands of this project: `python3 -m src run` and others.

They start with the standard library alone: environment.py sees to the packages first.
"""

from __future__ import annotations  # an older Python gets as far as check_python

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from src.commands import environment
from src.common.memory import keep_freed_memory
from src.common.project import NOTEBOOKS, ROOT

STAND_IN_NOTE = """
NOTE: outputs made with ImageNet's weights ({}) are replaced
by this run's, made with the stand-in. To have them back:
  git checkout -- notebooks answers data/results.json README.md
To run with ImageNet's weights: have a network, or put their file into data/weights/
(data/README.md says which, and where it comes from).

"""


def run(args: list[str]) -> int:
    """Execute the notebooks top to bottom and save them with their outputs."""
    parser = argparse.ArgumentParser(prog="python3 -m src run", description=run.__doc__)
    parser.add_argument("--fast", action="store_true", help="try it all on the sample")
    parser.add_argument("--retrain", action="store_true", help="train the network anew")
    parser.add_argument("--only", nargs="+", choices=NOTEBOOKS, default=NOTEBOOKS)
    options = parser.parse_args(args)
    environment.ensure()
    from src import cifar10
    from src.commands import answers, conclusions, notebooks
    from src.common import results

    importlib.import_module("matplotlib.font_manager")  # warns once, listing the fonts
    variables = {
        "MAMAN13_FAST": str(int(options.fast)),
        "MAMAN13_RETRAIN": str(int(options.retrain)),
    }
    note = ""
    try:
        if "q3" in options.only and not options.fast:
            print(f"data: {cifar10.load(train=False).provenance}")
            note = _stand_in_note()
            print(note, end="", flush=True)
        with _copy() if options.fast else nullcontext(ROOT) as root:
            for name in (NOTEBOOKS[short] for short in sorted(set(options.only))):
                print(f"{name} ...", flush=True)
                done = notebooks.execute(Path(root, "notebooks", name), variables)
                print(f"  {done.cells} cells, {done.seconds:.1f} s", flush=True)
                for flaw in done.flaws:
                    print(f"WARNING: {name}: {flaw}", flush=True)
    except (cifar10.DataUnavailable, notebooks.NotebookFailed) as error:
        sys.exit(f"error: {error}")
    if options.fast:
        print("A trial on the embedded sample: nothing here was changed.")
        return 0
    print("The outputs are in notebooks/, all measured figures in data/results.json.")
    try:
        for page in answers.update_answers():
            print(f"{page} brought up to date")
        for doubt in conclusions.doubts(results.read_results()):
            print(f"WARNING: {doubt}")
    except ValueError as error:  # e.g. after --only, with nothing recorded before
        print(f"The written answers stay as they are: {error}")
    print(note, end="")
    return 0


def _stand_in_note() -> str:
    """What a run must say if it replaces outputs of ImageNet's weights, or ""."""
    from src import weights
    from src.common import results

    try:
        used = weights.load_pretrained().name  # fetches them if need be, and says which
        before = results.read_results().get("provenance", {}).get("weights", used)
    except (ValueError, weights.WeightsUnavailable) as error:
        sys.exit(f"error: {error}")
    stand_in = weights.STANDIN_NAME
    return STAND_IN_NOTE.format(before) if used == stand_in != before else ""


def _copy() -> tempfile.TemporaryDirectory:
    """A temporary copy of what the notebooks need, without caches and all data."""
    copy = tempfile.TemporaryDirectory(prefix="maman13-", ignore_cleanup_errors=True)
    ignore = shutil.ignore_patterns("cache", "cifar-10-*", "*.tmp*", "__pycache__")
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
    keep_freed_memory()
    return importlib.import_module(f"src.{name}").main(args) or 0


benchmark = partial(module, "commands.benchmark", False)
vision = partial(module, "vision_tasks.command", False)
submit = partial(module, "commands.submission", True)
#: name: (what it does, the function that does it and returns the exit status)
COMMANDS = {
    "run": ("execute the three notebooks and save their outputs", run),
    "test": ("run the tests, or pytest with other arguments", test),
    "benchmark": ("measure question 3's shortcuts and question 1's layer", benchmark),
    "vision": ("train and measure the guide to twelve vision tasks", vision),
    "submit": ("check everything and pack the ZIP to hand in", submit),
}
if not (ROOT / "tests").exists():  # handed in: without tests and guide, and only once
    COMMANDS = {name: COMMANDS[name] for name in ("run", "benchmark")}


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
    except environment.SetupError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
