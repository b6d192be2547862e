"""Who may import whom: the contracts of pyproject.toml, kept by import-linter."""

import shutil
import subprocess
import sys
from pathlib import Path

from src.common.project import ROOT


def lint(root: Path) -> subprocess.CompletedProcess:
    """Check the contracts of the project in this folder."""
    code = (
        "from importlinter.cli import lint_imports; exit(lint_imports(no_cache=True))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True
    )


def test_imports_keep_to_their_direction():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "broken" in result.stdout  # "N kept, 0 broken": they were looked at


def test_an_import_upwards_is_found(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignore)
    with open(tmp_path / "src/common/files.py", "a", encoding="utf-8") as module:
        module.write("\nfrom src.commands import answers\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout
    assert "src.common.files -> src.commands.answers" in result.stdout
