"""results.json: recorded whole, read back, and what the committed outputs say."""

import hashlib
import json
import sys
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from src.common import project, results
from src.common.code import syntax_hash
from src.common.project import DATA, ROOT
from src.common.results import read_results, record_results


@pytest.fixture
def code(monkeypatch):
    """What the modules are taken to be: to read all that pytest imported takes long."""
    code = {"src/a.py": "a hash"}
    monkeypatch.setattr(results, "imported_code", lambda: code)
    return code


def test_sections_are_replaced_and_others_kept(tmp_path, code):
    path = tmp_path / "results.json"
    record_results("q1", path, convolution={"cases": 1, "old": True})
    record_results("q2", path, gradients={"draws": 3}, more={"שלום": 1})
    record_results("q1", path, convolution={"cases": 2})
    recorded = read_results(path)
    assert recorded["convolution"] == {"cases": 2}
    assert recorded["gradients"] == {"draws": 3}
    assert recorded["code"] == {"q1": code, "q2": code}
    assert recorded["cells"] == {"q1": None, "q2": None}  # not in a kernel
    assert list(recorded) == ["convolution", "code", "cells", "gradients", "more"]
    text = path.read_text("utf-8")
    assert "שלום" in text and "\n  " in text and text.endswith("}\n")


@pytest.fixture
def named(monkeypatch):
    """A function: the notebook that runs is of this path, as VS Code or Jupyter say."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)

    def name(path: str, by: str = "Jupyter") -> None:
        if by == "Jupyter":
            monkeypatch.setenv("JPY_SESSION_NAME", path)
        else:
            main.__vsc_ipynb_file__ = path

    return name


@pytest.mark.parametrize("by", ["Jupyter", "VS Code"])
@pytest.mark.parametrize(
    ("path", "copy"),
    [
        ("/a b/notebooks/q3_transfer_learning.ipynb", False),
        ("/a b/notebooks/q3_transfer_learning-Copy1.ipynb", True),
        ("Untitled.ipynb", True),
        ("", False),
        ("console-1-5b0e", False),
    ],
)
def test_a_copy_of_a_notebook_is_known_by_its_name(named, path, copy, by):
    assert not project.is_copy()
    named(path, by)
    assert project.is_copy() == copy


def test_vs_codes_word_comes_first(named):
    """Its kernels may have been given another name by a server."""
    named("q1_convolution-jvsc-1.ipynb", "Jupyter")
    named("/a/q1_convolution.ipynb", "VS Code")
    assert not project.is_copy()


def test_a_copy_records_nothing_and_says_so(tmp_path, code, named, capsys):
    path = tmp_path / "results.json"
    record_results("q3", path, transfer={"test_accuracy": 0.9})
    before = path.read_bytes()
    named("q3_transfer_learning-Copy1.ipynb")
    record_results("q3", path, transfer={"test_accuracy": 0.1})
    assert path.read_bytes() == before
    said = "A trial: data/results.json and answers/figures/ stay as they are.\n"
    assert capsys.readouterr().out == said


def test_the_code_is_every_imported_module_of_ours(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    modules = {"src": "src/__init__.py", "src.a": "src/a.py", "srcs": "src/no.py"}
    modules |= {"src.common.b": "src/common/b.py", "other": "src/other.py"}
    for name in [name for name in sys.modules if name.split(".")[0] == "src"]:
        monkeypatch.delitem(sys.modules, name)
    for name, path in modules.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f'"""Doc."""\nx = "{name} שלום"  # x', "utf-8")
        module = ModuleType(name)
        module.__file__ = str(tmp_path / path)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "src.c", ModuleType("src.c"))  # without a file
    assert results.imported_code() == {
        modules[name]: syntax_hash(f'x = "{name} שלום"')
        for name in ("src", "src.a", "src.common.b")
    }


def test_the_cells_are_those_that_the_kernel_executed(monkeypatch):
    history = SimpleNamespace(input_hist_raw=["", "a = 1", "b = 2\n"])
    shell = SimpleNamespace(history_manager=history)
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell)
    )
    expected = hashlib.sha256(b"a = 1\0b = 2").hexdigest()
    assert results.executed_cells() == results.cells_hash(["a = 1\n\n", "b = 2"])
    assert results.executed_cells() == expected
    assert results.cells_hash(["a = 1b = 2"]) != expected
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None)
    )
    assert results.executed_cells() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert results.executed_cells() is None


def test_nothing_recorded_yet(tmp_path):
    assert read_results(tmp_path / "results.json") == {}


def test_a_damaged_file_says_what_to_do(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("{")
    with pytest.raises(
        ValueError,
        match=r"results\.json is not .*restore or delete it, and run",
    ):
        read_results(path)


def test_nan_is_refused_and_the_old_file_kept(tmp_path, code):
    path = tmp_path / "results.json"
    record_results("q1", path, convolution={"cases": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        record_results("q1", path, convolution={"cases": float("nan")})
    assert read_results(path)["convolution"] == {"cases": 1}


# What is committed ------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded():
    return json.loads((DATA / "results.json").read_text(encoding="utf-8"))


def printed(name: str) -> str:
    """All text outputs of a committed notebook."""
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    pieces = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            pieces += [output.get("text", ""), data.get("text/plain", "")]
            pieces.append(data.get("text/markdown", ""))
    return "\n".join(pieces)


def test_question_1_printed_what_it_recorded(recorded):
    text, convolution = printed("q1_convolution.ipynb"), recorded["convolution"]
    ratios = [convolution["time_ratio"], convolution["memory_ratio"]]
    assert "**{:.2f}×** | **{:.2f}×** |".format(*ratios) in text
    largest = max(convolution["largest_differences_float64"].values())
    assert f"largest difference of all: {largest:.1e}" in text
    assert convolution["batch_size"] == 8


def test_question_2_printed_what_it_recorded(recorded):
    text, gradients = printed("q2_backpropagation.ipynb"), recorded["gradients"]
    for found in gradients["largest_differences"].values():
        for difference in found.values():
            assert f"{difference:.1e}" in text
    assert f"{gradients['general_configurations']} configurations" in text


def test_question_3_printed_what_it_recorded(recorded):
    text = printed("q3_transfer_learning.ipynb")
    for network in ("transfer", "scratch"):
        values = recorded[network]
        low, high = values["interval"]
        assert f"test accuracy {values['test_accuracy']:.2%}" in text
        assert f"{values['test_accuracy']:.2%} ± {(high - low) / 2:.2%}" in text
        assert f"{values['parameters']:,}" in text
    twice = recorded["scratch"]["test_accuracy_mirror_averaged"]
    assert f"mirror image averaged: {twice:.2%}" in text
    for mistake in recorded["transfer"]["worst_mistakes"]:
        assert f"| {mistake['index']} |" in text
