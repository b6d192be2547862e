"""What is said where the packages are missing: which Python runs, what to start."""

import subprocess
import sys

import pytest

from src.common import project
from src.common.project import ROOT, require_packages


def test_nothing_is_said_where_the_packages_are():
    assert require_packages() is None


@pytest.mark.parametrize(
    ("system", "start"),
    [("posix", "`.venv/bin/jupyter lab`"), ("nt", r"`.venv\Scripts\jupyter lab`")],
)
def test_what_to_start_is_said(tmp_path, monkeypatch, system, start):
    monkeypatch.setattr(project.importlib.util, "find_spec", {"torchvision": 1}.get)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project.os, "name", system)
    with pytest.raises(ModuleNotFoundError) as lacking:
        require_packages()
    said = str(lacking.value)
    assert said.startswith("torch, matplotlib: not installed")
    assert sys.executable in said and start in said and "VS Code" in said
    assert f"`{'py' if system == 'nt' else 'python3'} -m src run`" in said

    (tmp_path / ".venv").mkdir()
    with pytest.raises(ModuleNotFoundError) as lacking:
        require_packages()
    assert start in str(lacking.value) and "src run" not in str(lacking.value)


def test_a_python_without_packages_gets_as_far_as_that():
    """A set-up cell on a bare Python: no other error comes first."""
    code = "from src.common.project import require_packages; require_packages()"
    bare = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        f"import sys; sys.path[:0] = ['.']; {code}",
    ]
    done = subprocess.run(bare, cwd=ROOT, capture_output=True, encoding="utf-8")
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith("ModuleNotFoundError: torch, torchvision, matplotlib: not")
