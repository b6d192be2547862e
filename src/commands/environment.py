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
import subprocess
import sys
from pathlib import Path

from src.common.project import ROOT

REQUIREMENTS = ROOT / "requirements.txt"
VENV = ROOT / ".venv"
#: Only the commands `test` and `submit` need these, the notebooks don't.
NOT_FOR_NOTEBOOKS = {
    "pytest",
    "pytest-xdist",
    "ruff",
    "import-linter",
    "torchmetrics",
    "pycocotools",
    "math-core",
}
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
    pins = {
        name: version
        for name, version in pinned(REQUIREMENTS).items()
        if everything or name not in NOT_FOR_NOTEBOOKS
    }
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


def pinned(requirements: Path) -> dict[str, str]:
    """The `name==version` lines of a requirements file."""
    text = requirements.read_text(encoding="utf-8")
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
    """Make `venv` and install the requirements, or finish what was interrupted.

    Does nothing when they are there already. Raises SetupError.
    """
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    python = str(python_of(venv))
    if succeeds(python, "import pip") and _read(stamp(venv)) == wanted:
        return
    if not succeeds(python, ""):
        broken = " anew, the one there is broken" if venv.exists() else ""
        print(f"Making the environment .venv{broken} ...", flush=True)
        status, errors = _call(sys.executable, "-m", "venv", "--clear", str(venv))
        if status:
            raise SetupError(_why_no_venv(errors))
    elif not succeeds(python, "import pip"):  # interrupted between Python and pip
        _call(python, "-m", "ensurepip", "--default-pip")
    print(
        "Installing the packages of requirements.txt into .venv (once; some minutes "
        "and up to 6 GB) ...",
        flush=True,
    )
    pip = (python, "-m", "pip", "--disable-pip-version-check", "install")
    status, errors = _call(*pip, "-r", str(requirements))
    if status:
        raise SetupError(_why_no_packages(errors, venv))
    stamp(venv).write_text(wanted, encoding="ascii")


def succeeds(python: str, code: str) -> bool:
    """Whether this interpreter exists, starts, and runs the code without error."""
    try:
        return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def restart(venv: Path) -> None:
    """Run this command again, in `venv`; does not return."""
    command = [str(python_of(venv)), "-m", "src", *sys.argv[1:]]
    environment = _environment() | {RESTARTED: "1"}
    sys.stdout.flush()
    if os.name != "nt":
        os.execve(command[0], command, environment)
    child = subprocess.Popen(command, env=environment)  # execve returns at once there
    while True:
        try:
            sys.exit(child.wait())
        except KeyboardInterrupt:
            continue  # the child has it too, and ends in its own way


def _environment() -> dict[str, str]:
    """For children: UTF-8 whatever the locale."""
    return {**os.environ, "PYTHONUTF8": "1"}


def _call(*command: str) -> tuple[int, str]:
    """Run a command with its output visible; its exit status and error output."""
    child = subprocess.Popen(
        command, env=_environment(), stderr=subprocess.PIPE, errors="replace"
    )
    errors = []
    with child:
        try:
            for line in child.stderr:
                errors.append(line)
                print(line, end="", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            child.stderr.read()  # it has Ctrl-C too: let it remove what is half-made
            raise
    return child.returncode, "".join(errors)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="ascii") if path.is_file() else None


def _why_no_venv(errors: str) -> str:
    if "ensurepip" in errors or "No module named venv" in errors:
        return (
            f"this Python ({sys.executable}) comes without its venv module. On Debian "
            "or Ubuntu: sudo apt install python3-venv; then run the command again."
        )
    return "could not make .venv (the message is above). " + _disk_or_rights(errors)


def _why_no_packages(errors: str, venv: Path) -> str:
    offline = re.search(
        r"connection broken|Failed to establish|name resolution|Max retries|"
        r"getaddrinfo|ProxyError|SSLError|ReadTimeout|timed out|versions: none",
        errors,
    )
    if offline:
        reason = (
            "the package index can't be reached, or has nothing for this Python: "
            "check the network connection."
        )
    elif "No matching distribution" in errors:
        reason = (
            "there is no such package for Python "
            f"{sys.version_info[0]}.{sys.version_info[1]} on this system: try Python "
            "3.11, 3.12 or 3.13."
        )
    else:
        reason = "pip's message is above. " + _disk_or_rights(errors)
    return (
        f"could not install the packages: {reason} "
        "Then run the same command again: it goes on from there."
    )


def _disk_or_rights(errors: str) -> str:
    if re.search(r"No space left|Errno 28\b|not enough space|quota", errors):
        free = shutil.disk_usage(ROOT).free / 1e9
        return f"The disk is full ({free:.1f} GB free, about 6 GB are needed)."
    if re.search(r"Permission denied|Errno 13\b|Read-only", errors):
        return f"There is no permission to write to {ROOT}."
    return ""
