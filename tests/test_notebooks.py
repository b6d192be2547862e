"""How notebooks are executed and saved, and what the committed ones look like."""

import ast
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpec

from src.commands import notebooks
from src.commands.notebooks import NotebookFailed
from src.common.code import syntax_hash
from src.common.project import NOTEBOOKS, ROOT

COMMITTED = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def notebook(tmp_path, make_notebook):
    """A function that makes a notebook from the sources of its cells."""
    return lambda *sources: make_notebook(tmp_path / "a b.ipynb", *sources)


def shown(path: Path, cell: int = 0) -> str:
    """The text of a cell's only output."""
    (output,) = nbformat.read(path, 4).cells[cell].outputs
    return (output.get("text") or output.data["text/plain"]).strip()


# Execution ---------------------------------------------------------------------------


def test_the_kernel_is_this_python_whatever_there_is(notebook, monkeypatch, tmp_path):
    registered = tmp_path / "jupyter/kernels/python3"
    registered.mkdir(parents=True)
    spec = {"argv": ["false"], "display_name": "of the user", "language": "python"}
    (registered / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    path = notebook("import sys\nprint(sys.executable)")
    content = nbformat.read(path, 4)
    content.metadata.kernelspec = {"name": "no-such-kernel", "display_name": "?"}
    nbformat.write(content, path)
    notebooks.execute(path)
    assert shown(path) == sys.executable


def test_where_and_how_the_kernel_runs(notebook, monkeypatch, tmp_path):
    (tmp_path / "startup.py").write_text("print('somebody')")
    monkeypatch.setenv("MPLBACKEND", "agg")
    path = notebook(
        "import json, os, matplotlib\n"
        "names = 'PYTHONHASHSEED', 'PYTHONUTF8', 'SEEN'\n"
        "json.dumps([os.getcwd(), *[os.environ[n] for n in names], "
        "matplotlib.get_backend()])"
    )
    execution = notebooks.execute(path, {"SEEN": "yes"})
    found = json.loads(shown(path).strip("'"))
    assert found[:4] == [str(tmp_path), "0", "1", "yes"]
    assert "inline" in found[4]
    assert execution.cells == 1
    assert 0 < execution.seconds < 300
    assert "names a path" in execution.flaws[0]


def test_cells_are_counted_and_empty_ones_are_not(notebook):
    path = notebook("a = 1", "", "a + 1")
    assert notebooks.execute(path).cells == 2
    counts = [cell.execution_count for cell in nbformat.read(path, 4).cells]
    assert counts == [1, None, 2]
    notebooks.execute(path)  # a second time: again from 1, in a fresh kernel
    assert [cell.execution_count for cell in nbformat.read(path, 4).cells] == counts


def test_two_executions_give_the_same_bytes(notebook):
    path = notebook("print('a', flush=True)\nprint('b')", "{'x': 1}", "hash('text')")
    notebooks.execute(path)
    first = path.read_bytes()
    notebooks.execute(path)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", r"(?s)a b failed in code cell 2 of 2.*\n1 / 0\n.*ZeroDivisionError"),
        ("raise KeyboardInterrupt", "(?s)failed in code cell 2.*KeyboardInterrupt"),
        ("input('name?')", "(?s)failed in code cell 2.*StdinNotImplemented"),
        ("import os\nos._exit(3)", r"(?s)code cell 2 of 2.*died: out of memory\?"),
    ],
)
def test_a_failure_leaves_the_file_as_it_was(notebook, source, reason):
    path = notebook("'fine'", source)
    before = path.read_bytes()
    with pytest.raises(NotebookFailed, match=reason) as failure:
        notebooks.execute(path)
    assert "the file is as it was" in str(failure.value)
    assert "\x1b" not in str(failure.value)
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_dying_kernels_last_words_are_shown(notebook):
    path = notebook("import os\nos.write(2, b'out of luck')\nos.abort()")
    with pytest.raises(NotebookFailed, match="Kernel died") as failure:
        notebooks.execute(path)
    assert "out of luck" in str(failure.value)


def test_a_kernel_that_does_not_start(notebook, monkeypatch):
    path = notebook("1")
    before = path.read_bytes()
    broken = [sys.executable, "-c", "import sys; sys.exit('no kernel today')"]
    monkeypatch.setattr(
        notebooks.KernelSpecManager,
        "get_kernel_spec",
        lambda self, name: KernelSpec(argv=broken, language="python"),
    )
    with pytest.raises(NotebookFailed, match="a b failed to start its k") as failure:
        notebooks.execute(path)
    assert "no kernel today" in str(failure.value)
    assert path.read_bytes() == before


def test_a_disk_that_is_full_when_saving(notebook, monkeypatch):
    path = notebook("1")
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        notebooks.execute(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("text", [None, "", "<<<<<<< HEAD", "[]", '{"cells": 3}'])
def test_a_file_that_is_no_notebook(tmp_path, text):
    if text is not None:
        (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(NotebookFailed, match=r"a\.ipynb is no valid notebook"):
        notebooks.execute(tmp_path / "a.ipynb")


# What is saved -----------------------------------------------------------------------


def test_what_differs_between_machines_is_removed():
    new = nbformat.v4
    pieces = [("stdout", "a"), ("stdout", "b\n10%\r90%\rdone\n"), ("stderr", "c")]
    streams = [new.new_output("stream", name=name, text=text) for name, text in pieces]
    blank = new.new_output("display_data", data={})
    code = new.new_code_cell(
        "1",
        metadata={"execution": {"iopub": "2020"}, "scrolled": True},
        outputs=[*streams, blank, new.new_output(**said("d"))],
    )
    content = new.new_notebook(
        cells=[code, new.new_markdown_cell("text")],
        metadata={
            "widgets": {"x": 1},
            "language_info": {"name": "python", "version": "3"},
        },
    )
    assert notebooks.clean(content) == ["left out of cell 1: c"]
    nbformat.validate(content)
    assert content.metadata == {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    assert content.cells[0].metadata == {}
    texts = [out.get("text") or out.data for out in content.cells[0].outputs]
    assert texts == ["ab\ndone\n", "d"]


def test_what_is_written_to_stderr_is_told_and_left_out_of_what_is_saved(notebook):
    path = notebook(
        "import sys\nprint('libgomp: hm', file=sys.stderr)\n1",
        "import warnings\nwarnings.warn('x')",
    )
    told, warned = notebooks.execute(path).flaws
    assert told == "left out of cell 1: libgomp: hm"
    assert warned.startswith("left out of cell 2: ") and "UserWarning: x" in warned
    assert shown(path) == "1"
    assert nbformat.read(path, 4).cells[1].outputs == []


def executed(source: str = "1", **output) -> nbformat.NotebookNode:
    """A notebook of one executed cell, with one output if any is given."""
    new = nbformat.v4
    outputs = [new.new_output(**output)] if output else []
    cell = new.new_code_cell(source, execution_count=1, outputs=outputs)
    return new.new_notebook(cells=[cell])


def said(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        (
            executed("1", output_type="error", ename="E", evalue="bad", traceback=[]),
            "failed: E: bad",
        ),
        (executed("1", **said(f"at {ROOT}/data")), "names a path"),
        (executed("1", **said(f"in '{Path.home()}'")), "names a path"),
        (executed("open('/home/me/x')"), "path of this machine: /home/me/x"),
        *(
            (executed("1", **said(f"/{name}/x")), f"path of this machine: /{name}/x")
            for name in ("home", "root", "tmp", "work", "private", "content")
        ),
        (executed("1", **said("C:\\Users\\me")), "names a path"),
        (executed("1", **said("/Users/me")), "names a path"),
        (executed("1", **said("file:///home/me")), "names a path"),
        (
            executed("1", output_type="display_data", data={"text/html": "/home/me"}),
            "names a path",
        ),
    ],
)
def test_each_flaw_is_found(content, flaw):
    (found,) = notebooks.flaws(content)
    assert found.startswith("cell 1 ")
    assert flaw in found


def test_the_order_of_execution_is_told():
    content = executed()
    content.cells += executed().cells  # twice the count 1
    (found,) = notebooks.flaws(content)
    assert found == "its cells were not all executed in order: [1, 1]"
    content.cells[1].execution_count = 5  # tried thrice more: what it shows is the last
    assert notebooks.flaws(content) == []


@pytest.mark.parametrize(
    "text",
    ["https://a.org/home/x", "and/or", "homework/", "data/tmp", "1/work", "a:/b"],
)
def test_ordinary_text_is_no_flaw(text):
    assert notebooks.flaws(executed("1", **said(text))) == []


# A trial of the user -----------------------------------------------------------------

TRAINING = """
from torch import nn
from src.common.kept import make_key
from src.common.project import CHECKPOINTS
from src.common.trained import keep_trained

def train(epochs, anew=False):
    kept = {"committed": CHECKPOINTS, "anew": anew}
    network, key = nn.Linear(1, 1), make_key(recipe=epochs)
    fit = lambda partial: ([], 1.0)
    trained = keep_trained("three_blocks", key, network, fit, **kept)
    (file,) = CHECKPOINTS.iterdir()
    print("loaded" if trained.loaded else "trained", hash(file.read_bytes()))
"""


def test_a_trial_leaves_what_is_committed(tmp_path, make_notebook):
    for folder in ("src", "src/common"):
        (tmp_path / folder).mkdir()
        for module in (ROOT / folder).glob("*.py"):
            (tmp_path / folder / module.name).write_bytes(module.read_bytes())
    calls = ["train(14, anew=True)", "train(2)", "train(2)", "train(14)"]
    path = make_notebook(tmp_path / "notebooks/copy.ipynb", TRAINING, *calls)
    notebooks.execute(path, {"PYTHONPATH": str(tmp_path)})
    first, trial, again, original = (shown(path, cell) for cell in range(1, 5))
    told, what = trial.splitlines()
    assert told == (
        "three_blocks: computed anew, since the recipe changed; it goes into "
        "data/cache/, the committed one stays"
    )
    assert what == first and first.startswith("trained ")
    assert again == original == first.replace("trained", "loaded")


# The committed notebooks -------------------------------------------------------------


def test_there_is_one_notebook_a_question():
    assert [path.name for path in COMMITTED] == list(NOTEBOOKS.values())


@pytest.fixture(params=COMMITTED, ids=lambda path: path.stem)
def committed(request):
    return nbformat.read(request.param, as_version=4)


def anchors(notebook: nbformat.NotebookNode, levels: str) -> list[str]:
    """What a link to each heading of some levels ("1,3": # to ###) names, in order.

    The id in the line above it, or else the heading with "-" for each space.
    """
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    heading = rf'^(?:<a id="([\w-]+)"></a>\n+)?#{{{levels}}} +(.+?) *$'
    found = re.findall(heading, text, flags=re.MULTILINE)
    return [name or title.replace(" ", "-") for name, title in found]


def test_it_is_executed_whole_and_clean(committed):
    nbformat.validate(committed)
    notebooks.clean(committed)  # another Jupyter may have saved it
    assert notebooks.flaws(committed) == []


def test_it_is_small_enough_to_be_shown(committed):
    assert len(nbformat.writes(committed).encode()) < 3e6


def test_its_code_cells_fit_a_screen(committed):
    for number, cell in enumerate(committed.cells, 1):
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert max(map(len, lines), default=0) <= 88, f"cell {number}"
            assert sum(bool(line.strip()) for line in lines) <= 30, f"cell {number}"


def test_it_begins_with_title_and_blank_name(committed):
    title = committed.cells[0]
    assert title.cell_type == "markdown"
    assert re.match(r"# Question [123]: \S", title.source)
    lines = title.source.splitlines()
    assert "| Name | |" in lines
    assert "| ID | |" in lines
    assert "22961" in title.source


def test_its_contents_list_leads_to_every_part(committed):
    start = "\n".join(cell.source for cell in committed.cells[:2])
    linked = re.findall(r"\]\(#((?:[^()]|\([^()]*\))+)\)", start)
    linked = list(map(urllib.parse.unquote, linked))
    parts = [part for part in anchors(committed, "2") if part != "Contents"]
    assert set(linked) <= set(anchors(committed, "1,6"))
    assert [link for link in linked if link in parts] == parts


def test_prose_leads_into_its_code(committed):
    kinds = [cell.cell_type for cell in committed.cells]
    assert kinds[0] == "markdown"
    assert kinds.count("markdown") >= kinds.count("code") / 2


def test_what_is_marked_as_saved_is_what_src_holds():
    """`# @save` behind a definition in a cell, as the course's textbook does it.

    The same but for docstrings, type hints, comments and layout.
    """
    modules = [ast.parse(path.read_text("utf-8")) for path in ROOT.glob("src/*.py")]
    held = {n.name: n for m in modules for n in m.body if hasattr(n, "name")}
    marked = {}
    for path in COMMITTED:
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type != "code" or "# @save" not in cell.source:
                continue
            lines, found = cell.source.splitlines(), []
            for node in ast.parse(cell.source).body:
                if hasattr(node, "name") and "# @save" in lines[node.lineno - 1]:
                    same = syntax_hash(ast.unparse(held[node.name]))
                    assert syntax_hash(ast.unparse(node)) == same, node.name
                    found.append(node.name)
            assert len(found) == cell.source.count("# @save")  # each is a definition's
            marked.setdefault(path.stem[:2], set()).update(found)
    assert marked["q1"] >= {"Conv2d"}
    assert marked["q2"] >= {"cross_correlate", "chain_rule", "convolution_gradients"}
    assert marked["q3"] >= {
        *("input_transform", "train_epoch", "fit_head", "most_confident_mistakes"),
        *("ResidualBlock", "ThreeBlockNet", "augment", "optimiser_and_schedule"),
    }


GUARD = """
import os, socket

def refuse(address):
    host = address[0] if isinstance(address, tuple) else ""
    if host not in ("", "localhost", "127.0.0.1", "::1", "0.0.0.0"):
        with open(os.environ["ATTEMPTS"], "a") as log:
            log.write(f"{host}\\n")
        raise OSError("no network in this test")

class Guarded(socket.socket):
    def connect(self, address):
        refuse(address)
        return super().connect(address)

    def connect_ex(self, address):
        refuse(address)
        return super().connect_ex(address)

socket.socket = Guarded
lookup = socket.getaddrinfo
socket.getaddrinfo = lambda host, *a, **k: refuse((host,)) or lookup(host, *a, **k)
"""


def snapshot() -> dict[str, str]:
    """The hashes of all that a fast run must not change."""
    folders = ("notebooks", "src", "answers", "data/sample", "data/weights")
    files = [path for name in folders for path in (ROOT / name).rglob("*")]
    files += [ROOT / "data/results.json", *(ROOT / "data/checkpoints").rglob("*")]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
@pytest.mark.skipif(
    len(COMMITTED) < 3, reason="not all notebooks are there (a test of its own says so)"
)
def test_all_run_fast_without_a_network_and_change_nothing(tmp_path):
    """As a user does, with the network shut, and npm out of reach."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard/sitecustomize.py").write_text(GUARD)
    dead = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), dead)
    attempts = tmp_path / "attempts"
    before = snapshot()
    result = subprocess.run(
        [sys.executable, "-m", "src", "run", "--fast"],
        cwd=ROOT,
        env={
            **os.environ,
            **proxies,
            "PATH": str(Path(sys.executable).parent),
            "PYTHONPATH": str(tmp_path / "guard"),
            "ATTEMPTS": str(attempts),
            "TORCH_HOME": str(tmp_path / "no-downloaded-weights"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stdout
    assert "WARNING" not in result.stdout
    assert "nothing here was changed" in result.stdout
    assert not attempts.exists(), attempts.read_text()
    assert snapshot() == before


def test_the_guard_of_the_last_test_works(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    code = "import urllib.request as u; u.urlopen('http://example.org', timeout=5)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for name in [name for name in environment if name.lower().endswith("_proxy")]:
        del environment[name]
    environment["ATTEMPTS"] = str(tmp_path / "attempts")
    result = subprocess.run([sys.executable, "-c", code], env=environment, text=True,
                            capture_output=True)  # fmt: skip
    assert result.returncode != 0
    assert "no network in this test" in result.stderr
    assert (tmp_path / "attempts").read_text() == "example.org\n"


# Style -------------------------------------------------------------------------------


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]])
def test_ruff_is_content(check):
    result = subprocess.run(
        [sys.executable, "-m", "ruff", *check, "--no-cache", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
