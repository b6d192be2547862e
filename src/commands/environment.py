"""The packages of requirements.txt: found in this Python, or installed into `.venv`.

Standard library only: it runs before anything is installed, and reads the metadata of
the installed packages without importing them.
"""

from __future__ import annotations  # an older Python gets as far as check_python

import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from src.common.project import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
VENV = ROOT / ".venv"
#: What a package that only bundles others is needed for; Colab has these without it.
BUNDLES = {"jupyter": ("nbclient", "ipykernel")}


class SetupError(RuntimeError):
    """The packages can't be made available; the message says why and what to do."""


def ensure(*, everything: bool = False) -> None:
    """Return when this Python has the packages; otherwise continue in `.venv`.

    It is made if need be, then this very command starts again in it, and installs
    there what is missing. everything: also what the notebooks don't need.
    Raises SetupError.
    """
    if not missing(required(REQUIREMENTS, everything)):
        return
    if VENV.is_dir() and VENV.samefile(sys.prefix):
        install(REQUIREMENTS)
    else:
        make(VENV)
        restart(VENV)


def check_python(version: tuple = tuple(sys.version_info)) -> None:
    """Raise SetupError for a Python older than 3.11."""
    if version < (3, 11):
        found = f"{version[0]}.{version[1]}"
        raise SetupError(f"this is Python {found}, but 3.11 or newer is needed.")


def required(requirements: Path, everything: bool) -> list[str]:
    """The names of the packages of a requirements file.

    everything: also those below its first line `# for ...`, which notebooks don't need.
    """
    text = requirements.read_text(encoding="utf-8")
    if not everything:
        text = re.split("^# for ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)


def installed(name: str) -> bool:
    """Whether this Python has a package, in whatever version."""
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def missing(names: list[str]) -> list[str]:
    """Those of the packages that this Python lacks."""
    absent = [name for name in names if not installed(name)]
    return [n for n in absent if not all(map(installed, BUNDLES.get(n, [n])))]


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(venv: Path) -> None:
    """Make a virtual environment if there is none that works; raises SetupError."""
    if succeeds(str(python_of(venv)), "-c", "import pip"):
        return
    # there is none, or its Python is gone, or it was interrupted
    print("Making the environment .venv ...", flush=True)
    if not succeeds(sys.executable, "-m", "venv", "--clear", str(venv), show=True):
        raise SetupError(
            "could not make .venv: the reason is above. On Debian or Ubuntu, "
            "`sudo apt install python3-venv` may be needed first."
        )


def install(requirements: Path) -> None:
    """Install the requirements into this Python; raises SetupError."""
    print("Installing packages into .venv (once, minutes, up to 6 GB) ...", flush=True)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-r")
    if not succeeds(*pip, str(requirements), show=True):
        raise SetupError(
            "could not install the packages: pip's message is above. Check network, "
            f"disk ({shutil.disk_usage(ROOT).free / 1e9:.1f} GB free), and that "
            "this is Python 3.11 to 3.13. Then run the same command again: it goes on."
        )
    importlib.invalidate_caches()


def succeeds(*command: str, show: bool = False) -> bool:
    """Whether a command can be run, without error; `show`: with its output visible."""
    output = None if show else subprocess.DEVNULL
    variables = os.environ | {"PYTHONUTF8": "1"}  # UTF-8 whatever the locale
    try:
        return not subprocess.call(command, env=variables, stdout=output, stderr=output)
    except OSError:
        return False


def restart(venv: Path) -> None:
    """Run this command again, in `venv`; does not return."""
    command = [str(python_of(venv)), "-m", "src", *sys.argv[1:]]
    variables = os.environ | {"PYTHONUTF8": "1"}
    sys.stdout.flush()
    if os.name == "nt":  # execve returns at once there
        signal.signal(signal.SIGINT, lambda *_: None)  # the child has Ctrl-C, too
        sys.exit(subprocess.call(command, env=variables))
    os.execve(command[0], command, variables)
