"""Set-up on a bare Python: what is installed, what is made, what is said on failure."""

import ast
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from src.commands import environment
from src.commands.environment import SetupError

ROOT = environment.ROOT
PINS = {"torch": "2.15.0", "jupyter": "1.1.1", "tqdm": "4.70.1"}


@pytest.fixture
def packages(monkeypatch):
    """The packages that this Python is made to believe it has: name to version."""
    present = {"torch": "2.15.0", "jupyter": "1.1.1", "tqdm": "4.70.1"}
    monkeypatch.setattr(environment, "installed", present.get)
    monkeypatch.setattr(environment, "required", lambda path, everything: PINS)
    return present


@pytest.fixture
def actions(monkeypatch):
    """What `ensure` does in a Python outside of .venv, recorded instead of done."""
    done = []
    for step in ("make", "install", "restart"):
        monkeypatch.setattr(
            environment, step, lambda path, step=step: done.append((step, path))
        )
    monkeypatch.setattr(environment, "VENV", ROOT / "no-such-folder")
    return done


#: What `ensure` does where something is lacking.
MADE = [(step, ROOT / "no-such-folder") for step in ("make", "restart")]


# What is there -----------------------------------------------------------------------


def test_every_requirement_is_pinned():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line.strip() and not line.startswith("#")]
    found = environment.required(ROOT / "requirements.txt", True)
    assert len(found) == len(names) >= 7
    assert all("==" in name for name in names) and "tqdm" in found


def test_notebooks_need_what_is_above_the_first_comment_for_something(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# Pinned.\na==1\n# a note\nb.c-d==2\n# for x\ne==3\n# for y\nf==4\n"
    )
    assert environment.required(path, False) == ["a", "b.c-d"]
    assert environment.required(path, True) == ["a", "b.c-d", "e", "f"]
    needed = environment.required(ROOT / "requirements.txt", False)
    assert {"torch", "jupyter", "sympy"} <= set(needed)
    assert not {"pytest", "ruff", "math-core"} & set(needed)


def test_what_is_installed():
    assert environment.installed("torch")
    assert not environment.installed("no-such-package-at-all")


def test_pinned_versions_start_silently(packages, actions, capsys):
    environment.ensure()
    assert actions == []
    assert capsys.readouterr().out == ""


def test_other_versions_will_do(packages, actions, capsys):
    packages["torch"] = "2.13.0"
    environment.ensure()
    assert actions == []
    assert capsys.readouterr().out == ""


def test_what_jupyter_bundles_is_enough(packages, actions, capsys):
    del packages["jupyter"]
    packages |= {"nbclient": "0.11.0", "ipykernel": "7.4.0"}
    environment.ensure()
    assert actions == []
    assert capsys.readouterr().out == ""
    del packages["ipykernel"]
    environment.ensure()
    assert actions == MADE


def test_a_lacking_package_leads_into_the_environment(packages, actions):
    del packages["torch"]
    environment.ensure()
    assert actions == MADE


def test_notebooks_need_no_pytest(packages, actions, monkeypatch):
    more = PINS | {"pytest": "9.2.0"}
    monkeypatch.setattr(
        environment, "required", lambda path, everything: more if everything else PINS
    )
    environment.ensure()
    assert actions == []
    environment.ensure(everything=True)
    assert actions == MADE


def test_in_the_environment_it_installs(packages, actions, monkeypatch):
    """So a command can't start itself for ever."""
    del packages["torch"]
    monkeypatch.setattr(environment, "VENV", Path(sys.prefix))
    environment.ensure()
    assert actions == [("install", environment.REQUIREMENTS)]


# Old Pythons -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 6, 0), (3, 10, 13, "final", 0)])
def test_an_old_python_is_refused(version):
    with pytest.raises(SetupError, match=rf"is Python 3\.{version[1]}, .* 3\.11"):
        environment.check_python(version)


@pytest.mark.parametrize("version", [(3, 11, 0, "final", 0), (3, 13, 1), (4, 0)])
def test_a_new_python_is_not(version):
    environment.check_python(version)


@pytest.mark.parametrize(
    "name",
    [
        "__init__",
        "__main__",
        "commands/environment",
        "common/memory",
        "common/project",
    ],
)
def test_an_old_python_can_read_the_way_to_that_message(name):
    source = (ROOT / f"src/{name}.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 8))


@pytest.mark.parametrize("args", [["--help"], ["run", "--help"]])
def test_the_commands_need_only_the_standard_library_to_start(args):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import runpy; " + (
        f"sys.argv = ['src', *{args}]; runpy.run_module('src', run_name='__main__')"
    )
    result = subprocess.run(  # -S: without the installed packages
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "usage: python3 -m src" in result.stdout


# Making the environment --------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    """pip with nothing but what a test gives it."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "1")
    return monkeypatch


def wheel(folder: Path, name: str) -> str:
    """Write the wheel of a package with one empty module; its requirement line."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        archive.writestr(f"{info}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return f"{name}==1.0\n"


def test_the_whole_way_from_a_bare_python(project, command, offline, tmp_path):
    """Make, install, restart; go on after an interruption; say why it fails."""
    where = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    requirements = project / "requirements.txt"
    requirements.write_text(wheel(tmp_path, "notyetthere"))
    (project / "src/commands/benchmark.py").write_text(
        "import notyetthere, sys\n"
        "def main(args):\n    print('in', sys.prefix, args)\n    return 7"
    )
    venv = project / ".venv"
    reached = f"in {venv} ['--some', 'arguments']"

    first = command("benchmark", "--some", "arguments", **where)
    assert first.returncode == 7, first.stdout
    assert reached in first.stdout
    assert "Making the environment" in first.stdout

    second = command("benchmark", "--some", "arguments", **where)
    assert second.returncode == 7
    assert second.stdout.splitlines() == [reached]  # nothing to do

    for module in venv.rglob("notyetthere*"):  # interrupted while installing
        shutil.rmtree(module) if module.is_dir() else module.unlink()
    third = command("benchmark", "--some", "arguments", **where)
    assert third.returncode == 7, third.stdout
    assert third.stdout.splitlines()[-1] == reached
    assert "Making the environment" not in third.stdout

    requirements.write_text("neverheardof==1.0\n")
    fourth = command("benchmark", **where)
    assert fourth.returncode == 1
    assert "error: could not install the packages" in fourth.stdout
    assert "Traceback" not in fourth.stdout


@pytest.mark.parametrize("works", [True, False])
def test_a_broken_environment_is_made_anew(monkeypatch, tmp_path, works):
    """Python was upgraded, say, or it was interrupted before pip was there."""
    called = []

    def succeeds(*command, show=False):
        if command[1] == "-c":
            return works
        assert show  # its output may say what is wrong
        called.append(command[2:])
        return True

    monkeypatch.setattr(environment, "succeeds", succeeds)
    environment.make(tmp_path)
    assert called == ([] if works else [("venv", "--clear", str(tmp_path))])


def test_an_interpreter_that_does_not_start_is_no_error(tmp_path, capfd):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert not environment.succeeds(str(tmp_path / "dangling"), "")
    assert not environment.succeeds(str(tmp_path), "")
    assert not environment.succeeds(sys.executable, "-c", "1 / 0")
    assert environment.succeeds(sys.executable, "-c", "print('quiet')")
    assert capfd.readouterr() == ("", "")
    assert environment.succeeds(sys.executable, "-c", "print('ש')", show=True)
    assert capfd.readouterr().out == "ש\n"  # in UTF-8 whatever the locale


def test_without_a_network_pip_fails_with_a_reason(offline, tmp_path, capfd):
    offline.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("neverheardof==1.0\n")
    with pytest.raises(SetupError, match=r"Check network, disk .* same command again"):
        environment.install(requirements)
    assert "neverheardof" in capfd.readouterr().err  # pip's own message is shown


def test_an_environment_that_cannot_be_made(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "succeeds", lambda *command, show=False: False)
    with pytest.raises(SetupError, match="apt install python3-venv"):
        environment.make(tmp_path / "venv")


# Starting again ----------------------------------------------------------------------


def test_restart_replaces_this_process(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(os, "execve", lambda *args: called.append(args))
    monkeypatch.setattr(sys, "argv", ["src", "run", "--fast"])
    environment.restart(tmp_path)  # only the fake execve returns
    ((program, command, variables),) = called
    assert program == command[0] == str(environment.python_of(tmp_path))
    assert command[1:] == ["-m", "src", "run", "--fast"]
    assert variables["PYTHONUTF8"] == "1"
    assert variables["PATH"] == os.environ["PATH"]


def test_restart_where_processes_cannot_be_replaced(monkeypatch, tmp_path):
    """Windows: wait for the child, also through Ctrl-C, and pass its status on."""

    def call(command, env):
        assert command == [str(tmp_path / "Scripts/python.exe"), "-m", "src", "test"]
        assert env["PYTHONUTF8"] == "1"
        signal.raise_signal(signal.SIGINT)
        return 7

    monkeypatch.setattr(environment.subprocess, "call", call)
    monkeypatch.setattr(sys, "argv", ["src", "test"])
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as windows, pytest.raises(SystemExit) as status:
        windows.setattr(os, "name", "nt")
        windows.setattr(environment, "python_of", lambda v: v / "Scripts/python.exe")
        environment.restart(tmp_path)
    signal.signal(signal.SIGINT, before)
    assert status.value.code == 7
