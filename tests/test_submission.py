"""What is refused, what is only warned of, and what the ZIP holds."""

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from src import __main__ as commands
from src.commands import answers, submission
from src.commands.checks import link_problem
from src.commands.notebooks import KERNEL, execute
from src.commands.submission import prepare, write_zip
from src.common import results
from src.common.code import syntax_hash
from src.common.files import file_hash
from src.common.project import NOTEBOOKS as NAMES
from src.common.project import ROOT
from src.weights import STANDIN_NAME

VIDEO = "https://zoom.us/rec/share/abc?pwd=1"
SOURCE = "from src.conv import kernel\nkernel"
TITLE = """# Question: something

| | |
|---|---|
| Course | 22961 Deep Learning |
| Name | |
| ID | |

[There](#A-part)

## A part
"""
MODULE = '"""A layer."""\n\nkernel = 1  # one\n'
FILES = {
    "requirements.txt": "numpy==2.4.6\n",
    "LICENSE": "MIT License\n",
    "answers/figures/mistakes.png": "a figure",
    "src/commands/conclusions.py": "true = 1\n",
    "src/__init__.py": "",
    "src/conv.py": MODULE,
    "src/common/__init__.py": "",
    "src/common/files.py": "write = 1\n",
    "src/commands/__init__.py": "",
    "src/commands/answers.py": "fill = 1\n",
    "src/commands/answer_templates/q1.md": "a template\n",
    "src/commands/answer_templates/facts.jinja": "a template\n",
    "data/README.md": "data\n",
    "data/sample/train_batch": "images",
    "data/weights/README.md": "weights\n",
    "data/weights/resnet18.pt": "parameters",
    "data/checkpoints/three_blocks.pt": "more parameters",
}
NOT_IN_THE_ZIP = (
    "README.md",
    ".git/config",
    ".venv/lib/numpy.py",
    ".ci/run",
    "tests/test_conv.py",
    "src/__pycache__/conv.pyc",
    "src/vision_tasks/detection.py",
    "src/vision_tasks.py",
    "src/README.md",
    "src/common/files.py.tmpx1y2",
    "src/commands/submission.py",
    "src/commands/checks.py",
    "src/commands/html_export.py",
    "src/commands/zip_readme.md",
    "src/commands/answer_templates/readme_results.md",
    "src/commands/answer_templates/walkthrough.md",
    "src/commands/answer_templates/walkthrough.he.md",
    "answers/walkthrough.md",
    "answers/walkthrough.he.md",
    "answers/vision_tasks/guide.md",
    "answers/vision_tasks.md",
    "data/cache/features.pt",
    "data/cifar-10-batches-py/data_batch_1",
    "data/cifar-10-python.tar.gz",
    "data/sample/.DS_Store",
    "data/sample/more/test_batch",
    "data/weights/resnet18-f37072fd.pth",
    "data/weights/resnet18_small_blocks.pth",
    "data/checkpoints/three_blocks.partial.pt",
    "data/checkpoints/three_blocks.pt.tmpx1y2",
    "data/checkpoints/vision_tasks.pt",
    "notebooks/.ipynb_checkpoints/q1_convolution-checkpoint.ipynb",
    "notebooks/scratch.ipynb",
    "maman13.zip",
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A finished assignment, in small. Its answers are taken to be filled in."""
    root = tmp_path / "תרגיל 13"
    for name in NOT_IN_THE_ZIP:
        write(root / name, "not for the grader")
    for name, text in FILES.items():
        write(root / name, text)
    for short, name in NAMES.items():
        save(root / "notebooks" / name, notebook())
        write(root / f"answers/{short}.md", "# An answer\n\nIt is $x_1$.\n")
        write(root / f"answers/{short}.he.md", "# תשובה\n\nהתוצאה היא $x_1$.\n")
    write(root / "data/benchmark.json", "{}")
    code = {"src/conv.py": syntax_hash(MODULE)}
    change_results(
        root,
        provenance={"weights": "resnet18_imagenet1k_v1"},
        code={short: code for short in NAMES},
        cells={short: results.cells_hash([SOURCE]) for short in NAMES},
    )
    monkeypatch.setattr(answers, "render", as_it_is)
    monkeypatch.setattr(submission, "doubts", lambda figures: [])
    monkeypatch.setattr(submission.html_export, "page_to_html", page_to_html)
    monkeypatch.setattr(
        submission.html_export,
        "notebook_to_html",
        lambda content, *more: notebook_to_html(nbformat.writes(content), *more),
    )
    return root


def as_it_is(figures: dict, root: Path) -> dict[str, str]:
    """The pages that are there, as if they had been filled in from the figures."""
    pages = [*root.glob("answers/*.md"), root / "README.md"]
    return {str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in pages}


#: The real ones, but each page is made once in all these tests.
page_to_html = functools.cache(submission.html_export.page_to_html)
to_html = submission.html_export.notebook_to_html


@functools.cache
def notebook_to_html(text: str, *more: object) -> str:
    return to_html(nbformat.reads(text, 4), *more)


def notebook() -> nbformat.NotebookNode:
    output = new_output("execute_result", {"text/plain": "1"}, execution_count=1)
    cell = new_code_cell(SOURCE, execution_count=1, outputs=[output], id="code")
    return new_notebook(cells=[new_markdown_cell(TITLE, id="title"), cell])


def save(path: Path, content: nbformat.NotebookNode) -> None:
    write(path, nbformat.writes(content) + "\n")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


def change_results(root: Path, **sections: object) -> None:
    path = root / "data/results.json"
    old = json.loads(path.read_text("utf-8")) if path.exists() else {}
    write(path, json.dumps(old | sections))


def change_notebook(root: Path, short: str, change) -> None:
    path = root / "notebooks" / NAMES[short]
    content = nbformat.read(path, 4)
    change(content)
    save(path, content)


def fingerprints(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): file_hash(path) for path in files}


# What is refused ---------------------------------------------------------------------


def test_a_finished_assignment_has_no_problems(root):
    found = prepare(root, VIDEO, "Dana", "123456782")
    assert (found.problems, found.warnings, found.outdated) == ([], [], set())


def not_executed(root):
    def change(content):
        content.cells[1].update(execution_count=None, outputs=[])

    change_notebook(root, "q1", change)


def out_of_order(root):
    def change(content):
        content.cells[1].execution_count = 7
        content.cells.append(new_code_cell("1", execution_count=6))

    change_notebook(root, "q2", change)


def failed(root):
    error = new_output("error", ename="ValueError", evalue="no", traceback=[])
    change_notebook(root, "q3", lambda nb: nb.cells[1].outputs.append(error))


def written_to_stderr(root, short: str, text: str) -> None:
    output = new_output("stream", name="stderr", text=text)
    change_notebook(root, short, lambda nb: nb.cells[1].outputs.append(output))


def edited(root):
    def change(content):
        content.cells[1].source += " + 1"

    change_notebook(root, "q1", change)


def bad_formula(root):
    write(root / "answers/q2.he.md", "# ת\n\n$\\nosuchcommand$")


REFUSED = {
    "a notebook is not there": (
        lambda root: (root / "notebooks/q2_backpropagation.ipynb").unlink(),
        r"q2_backpropagation\.ipynb is missing or no notebook",
        set(),
    ),
    "a notebook is no notebook": (
        lambda root: write(root / "notebooks/q2_backpropagation.ipynb", "[1"),
        r"q2_backpropagation\.ipynb is missing or no notebook",
        set(),
    ),
    "a notebook is other JSON": (
        lambda root: write(root / "notebooks/q2_backpropagation.ipynb", "[]"),
        r"q2_backpropagation\.ipynb is missing or no notebook",
        set(),
    ),
    "a notebook was not executed": (not_executed, r"q1_.*not all .*\[None\]", {"q1"}),
    "cells out of order": (out_of_order, r"q2_.*not all .*order: \[7, 6\]", {"q2"}),
    "a cell failed": (failed, "q3_.*cell 2 failed: ValueError: no", {"q3"}),
    "the code was changed": (
        lambda root: write(root / "src/conv.py", MODULE.replace("= 1", "= 2")),
        r"q1_.*its outputs are older than src/conv\.py$",
        {"q1", "q2", "q3"},
    ),
    "the code was removed": (
        lambda root: (root / "src/conv.py").unlink(),
        r"q1_.*its outputs are older than src/conv\.py$",
        {"q1", "q2", "q3"},
    ),
    "the code was broken": (
        lambda root: write(root / "src/conv.py", "kernel = ="),
        r"q1_.*its outputs are older than src/conv\.py$",
        {"q1", "q2", "q3"},
    ),
    "a cell was edited after it ran": (
        edited,
        r"q1_.*its cells are not those that were executed, once each and in order$",
        {"q1"},
    ),
    "a notebook has recorded nothing": (
        lambda root: change_results(root, code={short: {} for short in NAMES}),
        r"q3_.*data/results\.json holds nothing from it",
        {"q1", "q2", "q3"},
    ),
    "no results": (
        lambda root: (root / "data/results.json").unlink(),
        r"^data/results\.json is missing",
        {"q1", "q2", "q3"},
    ),
    "broken results": (
        lambda root: write(root / "data/results.json", '{"code": '),
        r"results\.json is not valid JSON",
        {"q1", "q2", "q3"},
    ),
    "results of another kind": (
        lambda root: write(root / "data/results.json", "[1, 2]"),
        r"results\.json holds no results",
        {"q1", "q2", "q3"},
    ),
    "an answer has a broken formula": (
        bad_formula,
        r"answers/q2\.he\.md as HTML: .*nosuchcommand",
        set(),
    ),
    "the weights are not there": (
        lambda root: (root / "data/weights/resnet18.pt").unlink(),
        r"^data/weights/\*\.pt is missing$",
        set(),
    ),
    "only an unfinished training": (
        lambda root: (root / "data/checkpoints/three_blocks.pt").unlink(),
        r"^data/checkpoints/\* is missing$",
        set(),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said(root, case):
    spoil, message, outdated = REFUSED[case]
    spoil(root)
    found = prepare(root, VIDEO)
    assert any(re.search(message, problem) for problem in found.problems), found
    assert found.outdated == outdated


@pytest.mark.parametrize(
    "source", ["# new\nkernel=1\n", MODULE.replace("A layer", "Another"), "kernel = 1"]
)
def test_comments_and_layout_of_the_code_do_not_matter(root, source):
    write(root / "src/conv.py", source)
    assert prepare(root, VIDEO, "Dana", "1").problems == []


def test_all_changed_modules_are_named(root):
    write(root / "src/a.py", "x = 1\n")
    code = {"src/b.py": "0", "src/conv.py": syntax_hash(MODULE), "src/a.py": "0"}
    change_results(root, code=dict.fromkeys(NAMES, code))
    found = prepare(root, VIDEO)
    assert "its outputs are older than src/a.py, src/b.py" in found.problems[0]


def test_without_results_the_answers_are_not_judged(root, monkeypatch):
    write(root / "data/results.json", "{")
    monkeypatch.setattr(answers, "render", pytest.fail)
    assert len(prepare(root, VIDEO).problems) == 4  # of results and three notebooks


def test_empty_cells_are_not_executed(root):
    change_notebook(root, "q1", lambda nb: nb.cells.append(new_code_cell(" \n")))
    assert prepare(root, VIDEO).outdated == set()


def test_a_kernel_records_the_cells_that_it_executes(tmp_path):
    sources = [
        f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\n\n",
        "from pathlib import Path\nfrom src.common import results",
        "results.record_results('q1', path=Path('recorded.json'), a={'שלום': 1})",
    ]
    path = tmp_path / "notebook.ipynb"
    save(path, new_notebook(cells=[new_code_cell(source) for source in sources]))
    execute(path)
    recorded = json.loads((tmp_path / "recorded.json").read_text("utf-8"))
    assert recorded["cells"] == {"q1": results.cells_hash(sources)}
    assert results.cells_hash(sources) != results.cells_hash(["".join(sources)])


def test_answers_that_cannot_be_filled_in(root, monkeypatch):
    def fail(figures, folder):
        raise ValueError(f"a figure of {folder.name} is missing")

    monkeypatch.setattr(answers, "render", fail)
    assert prepare(root, VIDEO).problems == ["a figure of תרגיל 13 is missing"]


def test_everything_wrong_is_said_at_once_and_nothing_is_written(
    root, capsys, monkeypatch
):
    (root / "answers/q1.md").write_text("old", encoding="utf-8")
    monkeypatch.setattr(
        answers, "render", lambda *a: as_it_is(*a) | {"answers/q1.md": "new"}
    )
    for spoil in (not_executed, failed, bad_formula):
        spoil(root)
    (root / "notebooks/q2_backpropagation.ipynb").unlink()
    before = fingerprints(root)
    assert submission.main([], root) == 1
    assert fingerprints(root) == before
    printed = capsys.readouterr().err
    assert printed.startswith("error: this can't be handed in yet:\n")
    for part in (
        "q1_convolution.ipynb: its cells were not all executed",
        "q2_backpropagation.ipynb is missing",
        "q3_transfer_learning.ipynb: cell 2 failed",
        "answers/q2.he.md as HTML",
        "no link to the video",
    ):
        assert printed.count(part) == 1, part
    assert "`python3 -m src run --only q1 q3` helps, or, in Jupyter, to " in printed


# The link ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        VIDEO,
        "http://example.org",
        "HTTPS://YouTu.be/x?t=1#a",
        "https://youtu.be?v=x",
        "https://user@drive.google.com:443/file/d/1/view",
        "https://וידאו.קום/סרט",
    ],
)
def test_good_links(link):
    assert link_problem(link) is None


@pytest.mark.parametrize(
    "link",
    [
        "",
        "zoom.us/rec/share/abc",
        "www.zoom.us",
        "https://",
        "https:///rec",
        "https:zoom.us",
        "https://localhost/x",
        "https://...",
        "https://zoom.us/a b",
        "https://zoom.us/a\nhttps://zoom.us/b",
        "https://[zoom.us/",
        "ftp://zoom.us/x",
        "file:///home/me/video.mp4",
        "javascript:alert(1)",
        "TODO",
    ],
)
def test_bad_links(link):
    problem = link_problem(link)
    assert "link to the video" in problem
    assert repr(link) in problem or "--video URL" in problem


def test_the_link_may_stand_in_a_file(root, tmp_path):
    assert any("--video URL" in problem for problem in prepare(root).problems)
    write(root / "answers/video_link.txt", f"\ufeff{VIDEO}\r\n")
    found = prepare(root)
    assert found.problems == []
    assert found.files["video_link.txt"].decode() == VIDEO + "\n"
    given = prepare(root, "https://example.org/other")  # goes before the file
    assert given.files["video_link.txt"].decode() == "https://example.org/other\n"
    for none in ([], ["--video", ""]):
        assert submission.main(none, root) == 0
    write(root / "answers/video_link.txt", "later")
    assert any("'later'" in problem for problem in prepare(root).problems)


# What is warned of -------------------------------------------------------------------


def fill_in(content):
    text = content.cells[0].source.replace("| Name | |", "| Name | דנה |")
    content.cells[0].source = text.replace("| ID | |", "| ID | 123456782 |")


def test_a_blank_name_and_id_are_warned_of(root, capsys):
    def underline(content):
        text = content.cells[0].source.replace("| ID | |", "| ID | ____ |")
        content.cells[0].source = text

    for short, change in (("q1", fill_in), ("q2", underline), ("q3", fill_in)):
        change_notebook(root, short, change)
    assert submission.main(["--video", VIDEO], root) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "WARNING" in x]
    assert line.startswith("WARNING: q2_backpropagation.ipynb: Name and ID blank in")
    assert "--name and --id" in line
    found = prepare(root, VIDEO, "Noa")
    assert ["ipynb: ID blank" in line for line in found.warnings] == [True]


def test_name_and_id_go_into_the_zip_only(root):
    before = fingerprints(root)
    found = prepare(root, VIDEO, ' דנה  | "Dana" ', "012345678")
    assert fingerprints(root) == before
    assert found.warnings == []
    for file_name in NAMES.values():
        content = nbformat.reads(found.files[f"notebooks/{file_name}"].decode(), 4)
        original = nbformat.read(root / "notebooks" / file_name, 4)
        rows = content.cells[0].source.splitlines()
        assert r'| Name | דנה \| "Dana" |' in rows
        assert "| ID | 012345678 |" in rows
        assert content.cells[1:] == original.cells[1:]
        page = f"notebooks/{file_name}".replace(".ipynb", ".html")
        cells = [
            [cell.text for cell in row.find_all(["td", "th"])]
            for row in BeautifulSoup(found.files[page], "html.parser").find_all("tr")
        ]
        assert ["Name", 'דנה | "Dana"'] in cells
        assert ["ID", "012345678"] in cells


def test_what_was_filled_in_stays_unless_another_is_given(root):
    for short in NAMES:
        change_notebook(root, short, fill_in)
    name = "notebooks/q1_convolution.ipynb"
    found = prepare(root, VIDEO)
    same = nbformat.read(root / name, 4).cells
    assert nbformat.reads(found.files[name].decode(), 4).cells == same
    assert found.warnings == []
    other = nbformat.reads(prepare(root, VIDEO, "Noa").files[name].decode(), 4)
    assert "| Name | Noa |" in other.cells[0].source
    assert "| ID | 123456782 |" in other.cells[0].source


def test_stand_in_weights_are_warned_of_loudly(root, capsys):
    change_results(root, provenance={"weights": STANDIN_NAME})
    output = root / "maman13.zip"
    assert submission.main(["--video", VIDEO], root) == 0
    printed = capsys.readouterr().out
    assert "= WARNING =" in printed
    assert "STAND-IN weights" in printed
    assert STANDIN_NAME in printed
    assert "resnet18-f37072fd.pth" in printed
    assert "python3 -m src run --only q3" in printed
    with zipfile.ZipFile(output) as archive:
        readme = archive.read("README.md").decode()
    assert f"`{STANDIN_NAME}`.\nThey stand in for" in readme


@pytest.mark.parametrize("name", ["imagenet1k_v1", "imagenet_compressed"])
def test_weights_of_imagenet_are_named(root, name):
    change_results(root, provenance={"weights": f"resnet18_{name}"})
    found = prepare(root, VIDEO, "Dana", "1")
    readme = found.files["README.md"].decode()
    assert f"`resnet18_{name}`." in readme and "stand in" not in readme
    assert found.warnings == []


def test_conclusions_that_do_not_hold_are_warned_of(root, monkeypatch):
    def doubts(figures):
        return [f"not with {figures['provenance']['weights']}: a sentence"]

    monkeypatch.setattr(submission, "doubts", doubts)
    found = prepare(root, VIDEO, "Dana", "1")
    assert found.problems == []
    said = ["WARNING: not with resnet18_imagenet1k_v1: a sentence"]
    assert found.warnings == said


@pytest.mark.parametrize(
    "text",
    [
        "libgomp: Invalid value for environment variable OMP_NUM_THREADS\n",
        "/home/me/.venv/lib/torchvision/datasets/cifar.py:83: VisibleDeprecationWarning"
        ": dtype(): align should be passed\n  entry = pickle.load(f)\n",
        "/project/src/conv.py:7: UserWarning: careful\n",
    ],
)
def test_what_was_written_to_stderr_is_left_out(root, text):
    written_to_stderr(root, "q2", text)
    found = prepare(root, VIDEO, "Dana", "1")
    assert (found.problems, found.outdated) == ([], set())
    (warning,) = found.warnings
    assert warning.endswith(f"propagation.ipynb: left out of cell 2: {text.strip()}")
    packed = found.files["notebooks/q2_backpropagation.ipynb"].decode()
    assert "stderr" not in packed and '"text/plain"' in packed


# Executed by hand --------------------------------------------------------------------


def test_what_another_jupyter_saves_along_does_not_matter(root):
    def change(content):
        content.metadata = {
            "kernelspec": {"name": "torch-env", "display_name": "my env"},
            "language_info": {"name": "python", "version": "3.12.1"},
            "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
        }
        content.cells[1].metadata = {"scrolled": True, "trusted": True}
        log = new_output("display_data", {})
        content.cells[1].outputs.insert(0, log)  # of a finished progress bar

    change_notebook(root, "q1", change)
    before = fingerprints(root)
    found = prepare(root, VIDEO, "Dana", "1")
    assert (found.problems, found.warnings) == ([], [])
    text = prepare(root, VIDEO).files["notebooks/q1_convolution.ipynb"].decode()
    packed = nbformat.reads(text, 4)
    assert packed.cells == notebook().cells
    assert packed.metadata == {
        "kernelspec": KERNEL,
        "language_info": {"name": "python"},
    }
    assert fingerprints(root) == before


def test_pages_follow_the_results(root, monkeypatch, capsys):
    """Both what is packed and, once all is well, what is kept in the project."""

    def render(figures, folder):
        new = {"answers/q1.md": f"# New\n\n{figures['found']}\n", "README.md": "new"}
        return as_it_is(figures, folder) | new

    monkeypatch.setattr(answers, "render", render)
    (root / "answers/q3.he.md").unlink()  # which `render` then does not know
    change_results(root, found=0.5)
    assert submission.main([], root) == 1  # without a link to the video
    assert (root / "README.md").read_text() == "not for the grader"
    capsys.readouterr()
    assert submission.main(["--video", VIDEO], root) == 0
    printed = capsys.readouterr().out
    for page in ("answers/q1.md", "README.md"):
        assert f"{page} brought up to date with data/results.json\n" in printed
    assert printed.count("brought up") == 2
    assert (root / "answers/q1.md").read_text() == "# New\n\n0.5\n"
    with zipfile.ZipFile(root / "maman13.zip") as archive:
        assert archive.read("answers/q1.md").decode() == "# New\n\n0.5\n"
        assert "0.5" in archive.read("answers/q1.html").decode()


BY_HAND = [
    "from pathlib import Path\n\nfrom src.common import results\n",
    "",
    "path = Path('../data/results.json')\nresults.record_results('q1', path, a={})",
    "1 + 1  # of the user",
]


@pytest.fixture
def run_by_hand(root):
    """A function: Run All as in Jupyter, then some cells again, and save.

    Question 1 is then BY_HAND below its title; the function returns its path.
    """
    for module in (ROOT / "src/common").glob("*.py"):
        shutil.copy(module, root / "src/common")
    path = root / "notebooks" / NAMES["q1"]
    variables = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*again: int) -> Path:
        content = new_notebook(cells=[new_markdown_cell(TITLE)])
        content.cells += map(new_code_cell, BY_HAND)
        client = NotebookClient(content)
        with client.setup_kernel(env=variables, cwd=path.parent):
            for number in (*range(len(content.cells)), *again):
                client.execute_cell(content.cells[number], number)
        save(path, content)
        return path

    return run


def test_run_all_by_hand_then_save_then_submit(root, run_by_hand):
    """The user's own cell at the end may be tried again, and changed."""
    path = run_by_hand(4, 4)
    found = prepare(root, VIDEO, "Dana", "1")
    assert (found.problems, found.warnings) == ([], [])
    assert "1 + 1  # of the user" in found.files[f"notebooks/{path.name}"].decode()
    counts = [cell.get("execution_count") for cell in nbformat.read(path, 4).cells]
    assert counts == [None, 1, None, 2, 3 + 2]

    change_notebook(root, "q1", lambda nb: nb.cells[4].update(source="2 + 2"))
    assert prepare(root, VIDEO).problems == []
    change_notebook(root, "q1", lambda nb: nb.cells[3].update(source="3 + 3"))
    assert prepare(root, VIDEO).outdated == {"q1"}


def test_a_cell_that_was_executed_again_by_hand_is_refused(root, run_by_hand):
    run_by_hand(1)
    (problem,) = prepare(root, VIDEO).problems
    assert problem.endswith("its cells were not all executed in order: [4, 2, 3]")
    run_by_hand(1, 3, 4)  # all of them: in order, but what is recorded came of more
    (problem,) = prepare(root, VIDEO).problems
    assert problem.endswith("executed, once each and in order")


# The ZIP -----------------------------------------------------------------------------


def test_what_the_zip_holds(root):
    found = prepare(root, VIDEO)
    pages = [f"notebooks/{Path(name).stem}" for name in NAMES.values()]
    texts = [f"answers/{short}{he}" for short in NAMES for he in ("", ".he")]
    assert set(found.files) == {
        *FILES,
        "README.md",
        "README.html",
        "video_link.txt",
        "data/results.json",
        "data/benchmark.json",
        *(f"{page}.{kind}" for page in pages for kind in ("ipynb", "html")),
        *(f"{text}.{kind}" for text in texts for kind in ("md", "html")),
    }
    for name in FILES:
        assert found.files[name] == (root / name).read_bytes()


@functools.cache
def packed() -> dict[str, str]:
    """The real text files that would go into the ZIP as they are, by their paths."""
    paths = (path for pattern in submission.PLAIN_FILES for path in ROOT.glob(pattern))
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in paths
        if submission._belongs(path) and path.suffix in (".py", ".md", ".jinja")
    }


def docstrings(source: str) -> str:
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds))
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


def test_the_zip_holds_every_module_that_one_in_it_imports():
    needed = set()
    for name, text in packed().items():
        tree = ast.parse(text if name.endswith(".py") else "")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("src"):
                for one in ("", *(f".{alias.name}" for alias in node.names)):
                    file = f"{node.module}{one}".replace(".", "/")
                    needed |= {f"{file}.py", f"{file}/__init__.py"}
    needed = {name for name in needed if (ROOT / name).is_file()}
    assert {"src/common/project.py", "src/commands/notebooks.py"} <= needed
    assert needed <= set(packed())


def test_nothing_in_the_zip_speaks_of_what_it_does_not_hold(root):
    texts = {
        name: docstrings(text) if name.endswith(".py") else text
        for name, text in packed().items()
    }
    texts["README.md"] = prepare(root, VIDEO).files["README.md"].decode()
    absent = r"walkthrough|(?<!torch)vision|tests/|the tests|guide\b|submi|src test\b"
    for name, text in texts.items():
        found = re.search(absent, text)
        assert not found, f"{name}: {found[0]}"


def test_the_commands_of_what_was_handed_in(tmp_path):
    for name, text in packed().items():
        write(tmp_path / name, text)
    result = subprocess.run(
        [sys.executable, "-m", "src", "-h"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"^ +run ", result.stdout, re.MULTILINE)
    assert not re.search(r"\b(test|vision|submit)\b", result.stdout)


def test_every_link_in_the_zip_arrives(root):
    files = prepare(root, VIDEO).files
    followed = set()
    for name, content in files.items():
        if name.endswith(".html"):
            soup = BeautifulSoup(content, "html.parser")
            for link in soup.find_all("a", href=re.compile(r"^(?!https?:|#)")):
                target = os.path.normpath(f"{name}/../{link['href'].split('#')[0]}")
                assert target in files, (name, link)
                followed.add(target)
    pages = {name for name in files if name.endswith(".html")}
    assert followed == pages - {"README.html"}
    readme = files["README.md"].decode()
    assert "| Question 3 | [q3_transfer" in readme and f"<{VIDEO}>" in readme


def test_the_zip_holds_the_bytes_that_were_prepared(root, tmp_path):
    files = prepare(root, VIDEO).files
    write_zip(tmp_path / "a.zip", files)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(files)
        assert {name: archive.read(name) for name in files} == files
        sizes = [(entry.compress_size, entry.file_size) for entry in archive.filelist]
    assert sum(packed for packed, _ in sizes) < sum(whole for _, whole in sizes)


def test_it_lies_in_the_project(root, capsys):
    assert submission.main(["--video", VIDEO], root) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "files," in x]
    assert line.startswith(str(root / "maman13.zip"))
    with zipfile.ZipFile(root / "maman13.zip") as archive:
        assert f"{len(archive.namelist())} files" in line


def test_name_and_id_are_options(root, capsys):
    output = root / "maman13.zip"
    options = ["--video", VIDEO, "--name", "Noa", "--id", "7"]
    assert submission.main(options, root) == 0
    printed = capsys.readouterr().out
    assert "WARNING" not in printed
    assert printed.endswith(f" files, {output.stat().st_size / 1e6:.1f} MB\n")
    with zipfile.ZipFile(output) as archive:
        text = archive.read("notebooks/q1_convolution.ipynb").decode()
    assert "| Name | Noa |" in text and "| ID | 7 |" in text


def test_an_answer_as_html_has_its_language_and_its_figure(root):
    figure = ROOT / "answers/figures/mistakes.png"
    shutil.copy(figure, root / "answers/figures/mistakes.png")
    write(root / "answers/q3.he.md", "# ת\n\n![עשר](figures/mistakes.png)\n")
    found = prepare(root, VIDEO)
    assert found.problems == []
    page = BeautifulSoup(found.files["answers/q3.he.html"], "html.parser")
    assert (page.html["lang"], page.html["dir"]) == ("he", "rtl")
    assert page.img["src"].startswith("data:image/png;base64,")
    page = BeautifulSoup(found.files["answers/q1.html"], "html.parser")
    assert page.html["lang"] == "en"


def test_a_full_disk_leaves_the_old_zip(root, monkeypatch):
    write(root / "maman13.zip", "the old one")
    before = fingerprints(root)

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="No space left"):
        submission.main(["--video", VIDEO], root)
    assert fingerprints(root) == before


def test_it_is_a_command(monkeypatch):
    monkeypatch.setattr(commands.environment, "ensure", lambda **options: None)
    monkeypatch.setattr(submission, "main", lambda args: args)
    assert commands.COMMANDS["submit"][1](["--video", VIDEO]) == ["--video", VIDEO]


# The real one ------------------------------------------------------------------------


def test_what_is_committed_can_be_handed_in():
    assert prepare(ROOT, VIDEO).problems == []


@pytest.mark.slow
def test_a_stranger_runs_what_was_handed_in(tmp_path):
    """Unpacked elsewhere, without network or anything of ours, the notebooks run."""
    submitted = prepare(ROOT, VIDEO, "דנה", "123456782").files
    write_zip(tmp_path / "maman13.zip", submitted)
    home, folder = tmp_path / "home", tmp_path / "הגשה של דנה"
    home.mkdir()
    shutil.unpack_archive(tmp_path / "maman13.zip", folder)
    before = fingerprints(folder)
    dead = dict.fromkeys(
        ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"),
        "http://127.0.0.1:9",
    )
    result = subprocess.run(
        [sys.executable, "-m", "src", "run", "--fast"],
        cwd=folder,
        env={"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home), **dead},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=600,
    )
    assert result.returncode == 0, result.stdout
    for name in NAMES.values():
        cells = rf"^{re.escape(name)} \.\.\.\n  \d+ cells, [\d.]+ s$"
        assert re.search(cells, result.stdout, re.M)
    after = fingerprints(folder)
    made = {name for name in after if not name.endswith(".pyc")}
    assert {name: after[name] for name in made} == before
