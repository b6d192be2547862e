"""Set-up on a bare Python: what is installed, what is made, what is said on failure."""

import ast
import os
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
    monkeypatch.setattr(environment, "pinned", lambda path: PINS)
    monkeypatch.delenv(environment.RESTARTED, raising=False)
    return present


@pytest.fixture
def actions(monkeypatch):
    """What `ensure` does, recorded instead of done."""
    done = []
    monkeypatch.setattr(environment, "make", lambda *args: done.append("make"))
    monkeypatch.setattr(environment, "restart", lambda *args: done.append("restart"))
    return done


# What is there -----------------------------------------------------------------------


def test_every_requirement_is_pinned():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(environment.pinned(ROOT / "requirements.txt")) == len(names) >= 7


def test_build_tags_and_absent_packages(monkeypatch):
    monkeypatch.setattr(
        environment.importlib.metadata, "version", {"torch": "2.15.0+cpu"}.__getitem__
    )
    assert environment.installed("torch") == "2.15.0"
    monkeypatch.undo()
    assert environment.installed("no-such-package-at-all") is None


def test_pinned_versions_start_silently(packages, actions, capsys):
    environment.ensure()
    assert actions == []
    assert capsys.readouterr().out == ""


def test_other_versions_give_one_line_and_no_installation(packages, actions, capsys):
    packages["torch"] = "2.13.0"
    environment.ensure()
    assert actions == []
    (line,) = capsys.readouterr().out.splitlines()
    assert "torch 2.13.0 (pinned: 2.15.0)" in line
    assert "tqdm" not in line


def test_what_jupyter_bundles_is_enough(packages, actions, capsys):
    del packages["jupyter"]
    packages |= {"nbclient": "0.11.0", "ipykernel": "7.4.0"}
    environment.ensure()
    assert actions == []
    assert capsys.readouterr().out == ""
    del packages["ipykernel"]
    environment.ensure()
    assert actions == ["make", "restart"]


def test_a_lacking_package_leads_into_the_environment(packages, actions):
    del packages["torch"]
    environment.ensure()
    assert actions == ["make", "restart"]


def test_notebooks_need_no_pytest(packages, actions, monkeypatch):
    monkeypatch.setattr(environment, "pinned", lambda path: PINS | {"pytest": "9.2.0"})
    environment.ensure()
    assert actions == []
    environment.ensure(everything=True)
    assert actions == ["make", "restart"]


def test_it_restarts_once_only(packages, actions, monkeypatch, tmp_path):
    del packages["torch"]
    monkeypatch.setattr(environment, "VENV", tmp_path)
    environment.stamp(tmp_path).write_text("0")
    monkeypatch.setenv(environment.RESTARTED, "1")
    with pytest.raises(SetupError, match=r"torch still missing .* delete the folder"):
        environment.ensure()
    assert actions == []
    assert not environment.stamp(tmp_path).exists()  # the next run installs again
    assert environment.RESTARTED not in os.environ  # not inherited by notebooks, tests


# Old Pythons -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(3, 6, 0), (3, 10, 13, "final", 0)])
def test_an_old_python_is_refused(version):
    with pytest.raises(SetupError, match=rf"is Python 3\.{version[1]}, .* 3\.11"):
        environment.check_python(version)


@pytest.mark.parametrize("version", [(3, 11, 0, "final", 0), (3, 13, 1), (4, 0)])
def test_a_new_python_is_not(version):
    environment.check_python(version)


@pytest.mark.parametrize("name", ["__init__", "__main__", "environment", "project"])
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
    (project / "src/benchmark.py").write_text(
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

    environment.stamp(venv).unlink()  # interrupted while installing
    third = command("benchmark", "--some", "arguments", **where)
    assert third.returncode == 7, third.stdout
    assert third.stdout.splitlines()[-1] == reached
    assert "Making the environment" not in third.stdout

    requirements.write_text("neverheardof==1.0\n")
    fourth = command("benchmark", **where)
    assert fourth.returncode == 1
    assert "error: could not install the packages" in fourth.stdout
    assert "Traceback" not in fourth.stdout


@pytest.mark.parametrize(
    ("works", "commands"),
    [
        ((), ["venv", "pip"]),  # Python was upgraded, or the folder moved
        (("",), ["ensurepip", "pip"]),  # interrupted before pip was there
        (("", "import pip"), ["pip"]),  # interrupted while installing
    ],
)
def test_a_broken_environment_is_repaired(monkeypatch, tmp_path, works, commands):
    called = []
    monkeypatch.setattr(environment, "succeeds", lambda python, code: code in works)
    monkeypatch.setattr(
        environment, "_call", lambda *command: called.append(command[2]) or (0, "")
    )
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tqdm==1.0\n")
    environment.make(tmp_path, requirements)
    assert called == commands
    called.clear()
    monkeypatch.setattr(environment, "succeeds", lambda python, code: True)
    environment.make(tmp_path, requirements)
    assert called == []  # whole
    requirements.write_text("tqdm==1.1\n")
    environment.make(tmp_path, requirements)
    assert called == ["pip"]  # brought up to date


def test_an_interpreter_that_does_not_start_is_no_error(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    assert not environment.succeeds(str(tmp_path / "dangling"), "")
    assert not environment.succeeds(str(tmp_path), "")
    assert not environment.succeeds(sys.executable, "1 / 0")
    assert environment.succeeds(sys.executable, "")


def test_without_a_network_pip_fails_with_a_reason(offline, tmp_path, capfd):
    offline.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    offline.setattr(environment, "python_of", lambda venv: Path(sys.executable))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("neverheardof==1.0\n")
    with pytest.raises(SetupError, match=r"check the network .* same command again"):
        environment.make(tmp_path, requirements)
    assert "neverheardof" in capfd.readouterr().err  # pip's own message is shown
    assert not environment.stamp(tmp_path).exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("ERROR: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: [Errno 13] Permission denied: '.venv/lib'", "no permission to write"),
        ("ERROR: No matching distribution found for torch", r"no such package .* 3\.1"),
        ("Temporary failure in name resolution\nNo matching distribution", "network"),
        ("something else", "pip's message is above"),
    ],
)
def test_why_the_packages_were_not_installed(monkeypatch, tmp_path, said, reason):
    monkeypatch.setattr(environment, "succeeds", lambda python, code: True)
    monkeypatch.setattr(environment, "_call", lambda *command: (1, said))
    (tmp_path / "requirements.txt").write_text("")
    with pytest.raises(SetupError, match=reason):
        environment.make(tmp_path, tmp_path / "requirements.txt")
    assert not environment.stamp(tmp_path).exists()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("because ensurepip is not available", "apt install python3-venv"),
        ("/usr/bin/python3: No module named venv", "apt install python3-venv"),
        ("Error: [Errno 28] No space left on device", "disk is full"),
        ("Error: [Errno 30] Read-only file system: '.venv'", "no permission to write"),
    ],
)
def test_why_the_environment_was_not_made(monkeypatch, tmp_path, said, reason):
    monkeypatch.setattr(environment, "_call", lambda *command: (1, said))
    (tmp_path / "requirements.txt").write_text("")
    with pytest.raises(SetupError, match=reason):
        environment.make(tmp_path / "venv", tmp_path / "requirements.txt")


# Starting again ----------------------------------------------------------------------


def test_restart_replaces_this_process(monkeypatch, tmp_path):
    called = []
    monkeypatch.setattr(os, "execve", lambda *args: called.append(args))
    monkeypatch.setattr(environment.subprocess, "Popen", None)
    monkeypatch.setattr(sys, "argv", ["src", "run", "--fast"])
    with pytest.raises(TypeError):  # only the fake execve returns
        environment.restart(tmp_path)
    ((program, command, variables),) = called
    assert program == command[0] == str(environment.python_of(tmp_path))
    assert command[1:] == ["-m", "src", "run", "--fast"]
    assert variables["PYTHONUTF8"] == variables[environment.RESTARTED] == "1"


def test_restart_where_processes_cannot_be_replaced(monkeypatch, tmp_path):
    """Windows: wait for the child, also through Ctrl-C, and pass its status on."""

    class Child:
        answers = iter([KeyboardInterrupt, 7])

        def __init__(self, command, env):
            self.command = command

        def wait(self):
            answer = next(self.answers)
            if answer is KeyboardInterrupt:
                raise answer
            return answer

    monkeypatch.setattr(environment.subprocess, "Popen", Child)
    with monkeypatch.context() as windows, pytest.raises(SystemExit) as status:
        windows.setattr(os, "name", "nt")
        environment.restart(tmp_path)
    assert status.value.code == 7
