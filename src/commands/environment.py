"""The packages of requirements.txt: found in this Python, or installed into `.venv`.

Standard library only: it runs before anything is installed. Nothing is imported to
find out what there is, only the installed packages' metadata is read.
"""

from __future__ import annotations  # an older Python gets as far as check_python

import hashlib
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
#: Set for the restarted command, so that a failure cannot restart it for ever.
RESTARTED = "MAMAN13_RESTARTED"


class SetupError(RuntimeError):
    """The packages can't be made available; the message says why and what to do."""


def ensure(*, everything: bool = False) -> None:
    """Return when this Python has the packages; otherwise continue in `.venv`.

    In the latter case `.venv` is made or finished if need be, and this very command
    starts again in it: the call does not return. `everything` asks for what the
    notebooks don't need, too. Raises SetupError.
    """
    restarted = os.environ.pop(RESTARTED, None)  # not for this command's children
    pins = pinned(REQUIREMENTS, everything)
    lacking = missing(pins)
    if not lacking:
        if different := differences(pins):
            print(f"note: this Python has {different}; last digits may differ.")
        return
    if restarted:
        stamp(VENV).unlink(missing_ok=True)
        raise SetupError(
            f"{', '.join(lacking)} still missing in .venv after the installation: "
            "delete the folder .venv and run the command again."
        )
    make(VENV, REQUIREMENTS)
    restart(VENV)


def check_python(version: tuple = tuple(sys.version_info)) -> None:
    """Raise SetupError for a Python older than 3.11."""
    if version < (3, 11):
        raise SetupError(
            f"this is Python {version[0]}.{version[1]}, but 3.11 or newer is needed: "
            "install it (python.org) and run the command with it."
        )


def pinned(requirements: Path, everything: bool) -> dict[str, str]:
    """The `name==version` lines of a requirements file.

    everything: also those below its first line `# for ...`, which notebooks don't need.
    """
    text = requirements.read_text(encoding="utf-8")
    if not everything:
        text = re.split("^# for ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE))


def installed(name: str) -> str | None:
    """The installed version of a package without its build tag (+cpu), or None."""
    try:
        return importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def missing(pins: dict[str, str]) -> list[str]:
    """Those of the packages that this Python lacks, in whatever version."""
    return [
        name
        for name in pins
        if not installed(name)
        and not (name in BUNDLES and all(map(installed, BUNDLES[name])))
    ]


def differences(pins: dict[str, str]) -> str:
    """The packages whose version is not the pinned one, in words; "" for none."""
    return ", ".join(
        f"{name} {installed(name)} (pinned: {version})"
        for name, version in pins.items()
        if installed(name) not in (None, version)
    )


# The environment ---------------------------------------------------------------------


def python_of(venv: Path) -> Path:
    """The interpreter of a virtual environment."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stamp(venv: Path) -> Path:
    """Written last: the hash of the requirements that are installed completely."""
    return venv / "installed-requirements.sha256"


def make(venv: Path, requirements: Path) -> None:
    """Make `venv` with the requirements, as far as need be; raises SetupError."""
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = str(python_of(venv))
    works = succeeds(python, "-c", "import pip")
    if works and stamp(venv).is_file() and stamp(venv).read_text() == wanted:
        return
    if not works:  # there is none, or its Python is gone, or it was interrupted
        print("Making the environment .venv ...", flush=True)
        if not succeeds(sys.executable, "-m", "venv", "--clear", str(venv), show=True):
            raise SetupError(
                "could not make .venv: the reason is above. On Debian or Ubuntu, "
                "`sudo apt install python3-venv` may be needed first."
            )
    print(
        "Installing the packages of requirements.txt into .venv (once; some minutes "
        "and up to 6 GB) ...",
        flush=True,
    )
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install", "-r")
    if not succeeds(*pip, str(requirements), show=True):
        raise SetupError(
            "could not install the packages: pip's message is above. Check the network "
            f"connection, the disk ({shutil.disk_usage(ROOT).free / 1e9:.1f} GB are "
            f"free), and that this Python ({sys.version_info[0]}.{sys.version_info[1]})"
            " has such packages (3.11 to 3.13 do). Then run the same command again: "
            "it goes on from there."
        )
    stamp(venv).write_text(wanted, encoding="ascii")


def succeeds(*command: str, show: bool = False) -> bool:
    """Whether a command can be run, without error; `show`: with its output visible."""
    output = None if show else subprocess.DEVNULL
    try:
        return not subprocess.call(command, env=_utf8(), stdout=output, stderr=output)
    except OSError:
        return False


def restart(venv: Path) -> None:
    """Run this command again, in `venv`; does not return."""
    command = [str(python_of(venv)), "-m", "src", *sys.argv[1:]]
    variables = _utf8() | {RESTARTED: "1"}
    sys.stdout.flush()
    if os.name == "nt":  # execve returns at once there
        signal.signal(signal.SIGINT, lambda *_: None)  # the child has Ctrl-C, too
        sys.exit(subprocess.call(command, env=variables))
    os.execve(command[0], command, variables)


def _utf8() -> dict[str, str]:
    """The environment of children: UTF-8 whatever the locale."""
    return {**os.environ, "PYTHONUTF8": "1"}
