"""`python3 -m src submit`: checks the finished assignment and packs it into one ZIP.

Everything is looked at before anything is written, and all that is wrong is said at
once. Only what a grader needs goes in: the notebooks and answers, each also as an HTML
page, the link to the video, and what it takes to run the notebooks.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import nbformat
from nbformat import NotebookNode

from src.commands import answers
from src.commands.html_export import (
    FormulaError,
    NotSelfContained,
    notebook_to_html,
    page_to_html,
)
from src.commands.notebooks import NAMES, flaws
from src.common import results
from src.common.code import syntax_hash
from src.common.files import write_atomically
from src.common.project import ROOT

PAGES = tuple(f"answers/{q}{language}.md" for q in NAMES for language in ("", ".he"))
VIDEO_LINK = "answers/video_link.txt"
#: What else goes in, unchanged. Of each pattern at least one file must be there.
PLAIN_FILES = (
    "requirements.txt",
    "LICENSE",
    "answers/figures/*.png",
    "src/*.py",
    "src/answer_templates/q[123]*.md",
    "data/README.md",
    "data/results.json",
    "data/sample/*",
    "data/weights/README.md",
    "data/weights/*.pt",
    "data/checkpoints/*",
)
#: Leftovers, unfinished trainings, hidden files, and the guide, which is not graded.
LEFT_OUT = ("*.tmp*", "*.partial.*", ".*", "*vision_tasks*")

README = """# Assignment (Maman) 13, course 22961 Deep Learning

## To look

| | notebook with its outputs | written answer |
|---|---|---|
{questions}

The video: <{video}>

These pages open in any browser, without a network. The same as notebooks:
`notebooks/*.ipynb`; as plain text: `answers/*.md`.

## To run

With Python 3.11 or newer, in this folder:

    python3 -m src run --fast

tries all three notebooks in a few minutes on a sample of CIFAR-10 that is included, and
leaves their outputs as they are. Without `--fast` it fetches the whole of CIFAR-10
(170 MB) and replaces the outputs in notebooks and text, but not the HTML pages. If this
Python lacks the packages of requirements.txt, they are first installed into a folder
`.venv` here. Opening the notebooks in Jupyter or VS Code and running all cells does the
same.

## What is here

| | |
|---|---|
| `notebooks/`, `answers/` | the three questions |
| `src/` | what the notebooks import, and the command above |
| `data/` | sample, pre-trained weights, trained network, all measured figures |
| `video_link.txt` | the link above |

The outputs were made with these pre-trained weights: `{weights}`.{stand_in}
"""
IS_STAND_IN = (
    "\nThey stand in for the official ImageNet weights; data/weights/README.md says\n"
    "what they are."
)

STAND_IN_WARNING = """
==================================== WARNING ====================================
The outputs of question 3 were made with STAND-IN weights,
{weights}, not with the ImageNet weights that the
assignment asks for. To repeat them with the official ones:
  1. put resnet18-f37072fd.pth into data/weights/ (data/README.md says where it
     comes from), or work where the network reaches its host
  2. python3 -m src run --only q3
  3. run this command again
================================================================================="""


@dataclass
class Submission:
    """What would be handed in, and what there is to say about it."""

    #: The content of each file by its path in the ZIP.
    files: dict[str, bytes] = field(default_factory=dict)
    #: Why it can't be handed in like this, one sentence each.
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Notebooks that should be executed anew, by their short names.
    outdated: set[str] = field(default_factory=set)


def main(args: list[str], root: Path = ROOT) -> int:
    """Check and pack the project in `root`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m src submit",
        description="Check the finished assignment and pack it into one ZIP.",
    )
    parser.add_argument(
        "--video",
        metavar="URL",
        help=f"the link to your video; otherwise it is read from {VIDEO_LINK}",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        default=root / "maman13.zip",
        help="the ZIP to write (maman13.zip in this project's folder)",
    )
    parser.add_argument("--name", default="", help="your name, for the notebooks' top")
    parser.add_argument("--id", default="", help="your ID, for the notebooks' top")
    options = parser.parse_args(args)
    if options.output.is_dir():
        parser.error(f"--output {options.output} is a folder; name a file in it")

    submission = prepare(root, options.video, options.name, options.id)
    for warning in submission.warnings:
        print(warning)
    if submission.problems:
        print("error: this can't be handed in yet:", file=sys.stderr)
        for problem in submission.problems:
            print(f"  - {problem}", file=sys.stderr)
        if submission.outdated:
            only = ",".join(sorted(submission.outdated))
            print(f"`python3 -m src run --only {only}` helps.", file=sys.stderr)
        return 1
    write_zip(options.output, submission.files)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {len(submission.files)} files, {size:.1f} MB")
    return 0


def prepare(
    root: Path,
    video: str | None = None,
    name: str = "",
    student_id: str = "",
) -> Submission:
    """Collect all files of the ZIP, and all that is wrong with them.

    video: the link; without one it is read from answers/video_link.txt in `root`.
    name, student_id: written into the ZIP's notebooks; nothing in `root` is changed.
    """
    submission = Submission()
    figures = _read_results(root, submission)
    given = {"Name": name, "ID": student_id}
    blank = {label: [] for label in given}
    for short, file_name in NAMES.items():
        for label in _add_notebook(submission, root, short, file_name, figures, given):
            blank[label].append(file_name)
    submission.warnings += [
        f"WARNING: the row `| {label} | |` is blank in {', '.join(where)}: "
        f"fill it in, or give --{label.lower()}"
        for label, where in blank.items()
        if where
    ]
    if figures:
        submission.problems += answers.stale(root)
    for page in PAGES:
        _add_page(submission, root, page)
    for pattern in PLAIN_FILES:
        found = [path for path in root.glob(pattern) if _belongs(path)]
        if not found:
            submission.problems.append(f"{pattern} is missing")
        for path in found:
            submission.files[path.relative_to(root).as_posix()] = path.read_bytes()

    video = _read_link(root) if video is None else video.strip()
    if problem := link_problem(video):
        submission.problems.append(problem)
    weights = str(figures.get("provenance", {}).get("weights", "unknown"))
    stand_in = "tiny_imagenet" in weights
    if stand_in:
        submission.warnings.append(STAND_IN_WARNING.format(weights=weights))
    _add_readme(submission, video, weights, stand_in)
    return submission


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write a ZIP of these files, atomically.

    The same files give the same bytes (with the same version of zlib): sorted, all
    with the same date and permissions.
    """

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for name in sorted(files):
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system = 3  # Unix, on Windows too
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED, 9)

    write_atomically(path, write)


def link_problem(video: str) -> str | None:
    """What is wrong with the link to the video, or None."""
    if not video:
        return f"no link to the video: give --video URL or write it into {VIDEO_LINK}"
    try:
        address = urlsplit(video)
        host = address.hostname or ""
    except ValueError:  # e.g. half a pair of brackets
        host = ""
    known = re.match(r"https?://\S+$", video, re.IGNORECASE)
    if not known or not re.fullmatch(r"[\w-]+(\.[\w-]+)+", host):
        return f"the link to the video, {video!r}, is no http(s) address with a host"
    return None


# ------------------------------------------------------------------------- the pieces


def _read_results(root: Path, submission: Submission) -> dict:
    try:
        figures = results.read_results(root / "data/results.json")
        if not isinstance(figures, dict):
            raise ValueError("results.json holds no results")
    except ValueError as error:
        submission.problems.append(str(error))
        submission.outdated.update(NAMES)
        return {}
    return figures


def _add_notebook(
    submission: Submission,
    root: Path,
    short: str,
    file_name: str,
    figures: dict,
    given: dict[str, str],
) -> list[str]:
    """Add a notebook and its page, with name and ID filled in where they are given.

    Returns those of the two that stay blank.
    """
    path = root / "notebooks" / file_name
    try:
        notebook = nbformat.read(path, as_version=4)
        first = notebook.cells[0]
    except FileNotFoundError:
        submission.problems.append(f"notebooks/{file_name} is missing")
        return []
    except Exception as error:  # nbformat raises all sorts for what is no notebook
        submission.problems.append(f"{file_name} is not a valid notebook: {error}")
        return []

    found = [*flaws(notebook), *_older_than_code(root, notebook, short, figures)]
    submission.problems += [f"{file_name}: {flaw}" for flaw in found]
    if found:
        submission.outdated.add(short)

    blank = [label for label in given if not _fill_in(first, label, given[label])]
    changed = any(given.values())
    submission.files[f"notebooks/{file_name}"] = (
        (nbformat.writes(notebook) + "\n").encode() if changed else path.read_bytes()
    )
    _add_html(submission, f"notebooks/{file_name}", lambda: notebook_to_html(notebook))
    return blank


def _fill_in(cell: NotebookNode, label: str, value: str) -> bool:
    """Write a value, if any, into the row `| label | |`; whether the row holds one."""
    row = re.compile(rf"^\|[ \t]*{label}[ \t]*\|(.*)\|[ \t]*$", re.MULTILINE)
    value = " ".join(value.split()).replace("|", r"\|")
    if value:
        cell.source = row.sub(lambda _: f"| {label} | {value} |", cell.source, count=1)
    match = row.search(cell.source)
    return bool(match and match[1].strip(" \t_"))


def _older_than_code(
    root: Path, notebook: NotebookNode, short: str, figures: dict
) -> list[str]:
    """What has changed since the outputs were made, told by hashes."""
    recorded = figures.get("code", {}).get(short)
    if not recorded:
        return ["data/results.json holds nothing from it"]
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    executed = results.cells_hash(source for source in cells if source.strip())
    if figures.get("cells", {}).get(short) != executed:
        return ["its cells were changed since they were executed"]
    changed = {
        name
        for name, digest in recorded.items()
        if not (root / name).is_file()
        or syntax_hash((root / name).read_text(encoding="utf-8")) != digest
    }
    if not changed:
        return []
    return [f"its outputs are older than {', '.join(sorted(changed))}"]


def _add_page(submission: Submission, root: Path, page: str) -> None:
    path = root / page
    if not path.is_file():
        if not any(page in problem for problem in submission.problems):
            submission.problems.append(f"{page} is missing")
        return
    text = path.read_text(encoding="utf-8")
    submission.files[page] = path.read_bytes()
    language = "he" if page.endswith(".he.md") else "en"
    _add_html(submission, page, lambda: page_to_html(text, language, path.parent))


def _add_html(submission: Submission, source: str, export: Callable[[], str]) -> None:
    try:
        html = export()
    except (FormulaError, NotSelfContained) as error:
        submission.problems.append(f"{source} as HTML: {error}")
    else:
        name = re.sub(r"\.\w+$", ".html", source)
        submission.files[name] = html.encode("utf-8")


def _belongs(path: Path) -> bool:
    return path.is_file() and not any(path.match(pattern) for pattern in LEFT_OUT)


def _read_link(root: Path) -> str:
    path = root / VIDEO_LINK
    return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""


def _add_readme(
    submission: Submission, video: str, weights: str, stand_in: bool
) -> None:
    questions = "\n".join(
        f"| Question {short[1:]} | [{Path(file_name).stem}]"
        f"(notebooks/{Path(file_name).stem}.html) "
        f"| [English](answers/{short}.html), [עברית](answers/{short}.he.html) |"
        for short, file_name in NAMES.items()
    )
    text = README.format(
        questions=questions,
        video=video,
        weights=weights,
        stand_in=IS_STAND_IN if stand_in else "",
    )
    submission.files["video_link.txt"] = f"{video}\n".encode()
    submission.files["README.md"] = text.encode()
    submission.files["README.html"] = page_to_html(text).encode()
