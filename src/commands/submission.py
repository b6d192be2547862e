"""`python3 -m src submit`: checks the finished assignment and packs it into one ZIP.

Everything is looked at before anything is written, and all that is wrong is said at
once. Only what a grader needs goes in: the notebooks and answers, each also as an HTML
page, the link to the video, and what it takes to run the notebooks. It makes no
difference whether `run` or the user, cell by cell, has executed the notebooks.
"""

import argparse
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import nbformat

from src.commands import answers, html_export
from src.commands.checks import VIDEO_LINK, fill_in, link_problem, stale
from src.commands.conclusions import doubts
from src.commands.notebooks import clean, flaws
from src.common.files import write_atomically
from src.common.pages import templates, write_outdated
from src.common.project import NOTEBOOKS, ROOT
from src.common.results import read_results
from src.weights import STANDIN_NAME

#: What goes in unchanged. Of each pattern at least one file must be there.
PLAIN_FILES = (
    "requirements.txt",
    "LICENSE",
    "answers/figures/*.png",
    "src/*.py",
    "src/common/*.py",
    "src/commands/*.py",
    "src/commands/answer_templates/q[123]*.md",
    "src/commands/answer_templates/*.jinja",
    "data/README.md",
    "data/results.json",
    "data/benchmark.json",
    "data/sample/*",
    "data/weights/README.md",
    "data/weights/*.pt",
    "data/checkpoints/*",
)
#: But not what only this command needs, nor the guide, which is not graded,
NOT_GRADED = ("submission.py", "checks.py", "html_*", "*vision_tasks*")
#: nor leftovers, unfinished trainings and hidden files.
LEFT_OUT = (*NOT_GRADED, "*.tmp*", "*.partial.*", ".*")


@dataclass
class Submission:
    """What would be handed in of a project, and what there is to say about it."""

    root: Path
    files: dict[str, bytes] = field(default_factory=dict)  # by the path in the ZIP
    pages: dict[str, str] = field(default_factory=dict)  # filled in; by the path
    problems: list[str] = field(default_factory=list)  # why it can't be, in sentences
    warnings: list[str] = field(default_factory=list)
    outdated: set[str] = field(default_factory=set)  # notebooks to execute anew

    def add(self, name: str, data: bytes, to_html: Callable, *source: object) -> None:
        """Add a file and, beside it, the HTML page `to_html(*source)`."""
        self.files[name] = data
        try:
            html = to_html(*source)
        except html_export.FormulaError as error:
            self.problems.append(f"{name} as HTML: {error}")
        else:
            self.files[str(PurePosixPath(name).with_suffix(".html"))] = html.encode()

    def add_notebook(self, short: str, figures: dict, rows: dict[str, str]) -> None:
        """Add a notebook, cleaned, with values, if any, in its first cell's rows."""
        path = self.root / "notebooks" / NOTEBOOKS[short]
        try:
            notebook = nbformat.read(path, as_version=4)
            foreign = clean(notebook)
            blank = [row for row in rows if not fill_in(notebook, row, rows[row])]
        except Exception as error:  # nbformat raises all sorts for what is no notebook
            self.problems.append(f"{path.name} is missing or no notebook: {error}")
            return
        if found := flaws(notebook) + stale(notebook, short, figures, self.root):
            self.problems += [f"{path.name}: {flaw}" for flaw in found]
            self.outdated.add(short)
        if blank:
            rest = "blank in its first cell: fill in, or give --name and --id"
            foreign.append(f"{' and '.join(blank)} {rest}")
        self.warnings += [f"WARNING: {path.name}: {sentence}" for sentence in foreign]
        data = f"{nbformat.writes(notebook)}\n".encode()
        self.add(f"notebooks/{path.name}", data, html_export.notebook_to_html, notebook)

    def add_answers(self, figures: dict) -> None:
        """Add the written answers, filled in with the figures; `main` keeps them."""
        try:
            self.pages = answers.render(figures, self.root)
        except ValueError as error:  # a figure is missing
            self.problems.append(str(error))
        for name in [name for name in self.pages if name.startswith("answers/q")]:
            text, language = self.pages[name], "he" if ".he." in name else "en"
            source = (text, language, self.root / "answers")
            self.add(name, text.encode(), html_export.page_to_html, *source)

    def add_readme(self, video: str, weights: str) -> None:
        """Add the link to the video and the first page to read; warn of a stand-in."""
        if problem := link_problem(video):
            self.problems.append(problem)
        self.files["video_link.txt"] = f"{video}\n".encode()
        stand_in = weights == STANDIN_NAME
        shown = {"video": video, "weights": weights, "stand_in": stand_in}
        shown["notebooks"] = {q: Path(name).stem for q, name in NOTEBOOKS.items()}
        template = templates(Path(__file__).parent).get_template
        if stand_in:
            self.warnings.append(template("stand_in_warning.txt").render(shown))
        text = template("zip_readme.md").render(shown)
        self.add("README.md", text.encode(), html_export.page_to_html, text)


def main(args: list[str], root: Path = ROOT) -> int:
    """Check and pack the project in `root`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m src submit", description=__doc__)
    parser.add_argument("--video", metavar="URL", help=f"else that in {VIDEO_LINK}")
    parser.add_argument("--name", help="your name, for the top of the notebooks")
    parser.add_argument("--id", help="your ID, for the top of the notebooks")
    parser.set_defaults(video="", name="", id="")
    options = parser.parse_args(args)

    submission = prepare(root, options.video, options.name, options.id)
    for warning in submission.warnings:
        print(warning)
    if submission.problems:
        said = ["error: this can't be handed in yet:", *submission.problems]
        print("\n  - ".join(said), file=sys.stderr)
        if only := " ".join(sorted(submission.outdated)):
            print(
                f"`python3 -m src run --only {only}` helps, or, in Jupyter, to restart "
                "the kernel, run all cells and save.",
                file=sys.stderr,
            )
        return 1
    for page in write_outdated(submission.pages, root):
        print(f"{page} brought up to date with data/results.json")
    output = root / "maman13.zip"
    write_zip(output, submission.files)
    size = output.stat().st_size / 1e6
    print(f"{output}: {len(submission.files)} files, {size:.1f} MB")
    return 0


def prepare(root: Path, video="", name="", student_id="") -> Submission:
    """Collect all files of the ZIP, and all that is wrong with them.

    video: the link; if empty, it is read from answers/video_link.txt in `root`.
    name, student_id: written into the ZIP's notebooks; nothing in `root` is changed.
    """
    submission = Submission(root)
    figures = {}
    try:
        figures |= read_results(root / "data/results.json")
    except (TypeError, ValueError) as error:
        submission.problems.append(f"data/results.json holds no results: {error}")
    for short in NOTEBOOKS:
        submission.add_notebook(short, figures, {"Name": name, "ID": student_id})
    if figures:
        submission.add_answers(figures)
        submission.warnings += [f"WARNING: {doubt}" for doubt in doubts(figures)]
    for pattern in PLAIN_FILES:
        found = [path for path in root.glob(pattern) if _belongs(path)]
        if not found:
            submission.problems.append(f"{pattern} is missing")
        for path in found:
            submission.files[path.relative_to(root).as_posix()] = path.read_bytes()
    kept_link = root / VIDEO_LINK
    if not video and kept_link.is_file():
        video = kept_link.read_text(encoding="utf-8-sig")
    weights = figures.get("provenance", {}).get("weights", "unknown")
    submission.add_readme(video.strip(), weights)
    return submission


def _belongs(path: Path) -> bool:
    return path.is_file() and not any(path.match(pattern) for pattern in LEFT_OUT)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    """Write a ZIP, atomically."""

    def write(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                archive.writestr(name, files[name])

    write_atomically(path, write)
