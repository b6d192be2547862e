"""`python3 -m src submit`: checks the finished assignment and packs it into one ZIP.

Everything is looked at before anything is written, and all that is wrong is said at
once. Only what a grader needs goes in: the notebooks and answers, each also as an HTML
page, the link to the video, and what it takes to run the notebooks.
"""

import argparse
import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from src.commands import answers, html_export
from src.commands.archive import write_zip
from src.commands.checks import VIDEO_LINK, fill_in, link_problem, older_than_code
from src.commands.notebooks import NAMES, flaws
from src.common.pages import templates
from src.common.project import ROOT
from src.common.results import read_results

PAGES = tuple(f"answers/{q}{language}.md" for q in NAMES for language in ("", ".he"))
#: What else goes in, unchanged. Of each pattern at least one file must be there.
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
    "data/sample/*",
    "data/weights/README.md",
    "data/weights/*.pt",
    "data/checkpoints/*",
)
#: What only this command needs, and the guide, which is not graded.
NOT_GRADED = ("submission.py", "checks.py", "archive.py", "html_*", "*vision_tasks*")
#: With leftovers, unfinished trainings and hidden files.
LEFT_OUT = ("*.tmp*", "*.partial.*", ".*", *NOT_GRADED)


@dataclass
class Submission:
    """What would be handed in, and what there is to say about it."""

    files: dict[str, bytes] = field(default_factory=dict)  # by the path in the ZIP
    #: Why it can't be handed in like this, one sentence each.
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    #: Notebooks that should be executed anew, by their short names.
    outdated: set[str] = field(default_factory=set)

    def add(self, name: str, content: bytes, export: Callable[[], str]) -> None:
        """A file, and beside it the HTML page that `export` makes of it."""
        self.files[name] = content
        try:
            html = export()
        except (html_export.FormulaError, html_export.NotSelfContained) as error:
            self.problems.append(f"{name} as HTML: {error}")
        else:
            self.files[re.sub(r"\.\w+$", ".html", name)] = html.encode()


def main(args: list[str], root: Path = ROOT) -> int:
    """Check and pack the project in `root`; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python3 -m src submit",
        description="Check the finished assignment and pack it into one ZIP, by "
        f"default maman13.zip. Without --video the link is read from {VIDEO_LINK}.",
    )
    parser.add_argument("--video", metavar="URL", help="the link to your video")
    parser.add_argument("--output", metavar="FILE", type=Path, help="the ZIP to write")
    parser.add_argument("--name", help="your name, for the top of the notebooks")
    parser.add_argument("--id", help="your ID, for the top of the notebooks")
    parser.set_defaults(output=root / "maman13.zip", name="", id="")
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
        if only := ",".join(sorted(submission.outdated)):
            print(f"`python3 -m src run --only {only}` helps.", file=sys.stderr)
        return 1
    write_zip(options.output, submission.files)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {len(submission.files)} files, {size:.1f} MB")
    return 0


def prepare(
    root: Path, video: str | None = None, name: str = "", student_id: str = ""
) -> Submission:
    """Collect all files of the ZIP, and all that is wrong with them.

    video: the link; without one it is read from answers/video_link.txt in `root`.
    name, student_id: written into the ZIP's notebooks; nothing in `root` is changed.
    """
    submission = Submission()
    figures = _figures(root, submission)
    _add_notebooks(root, submission, figures, {"Name": name, "ID": student_id})
    if figures:
        submission.problems += answers.stale(root)
    for page in PAGES:
        _add_answer(root, submission, page)
    for pattern in PLAIN_FILES:
        found = [path for path in root.glob(pattern) if _belongs(path)]
        if not found:
            submission.problems.append(f"{pattern} is missing")
        for path in found:
            submission.files[path.relative_to(root).as_posix()] = path.read_bytes()
    _add_readme(root, submission, figures, video)
    return submission


def _figures(root: Path, submission: Submission) -> dict:
    """The recorded results; none, and a problem, if they can't be read."""
    try:
        figures = read_results(root / "data/results.json")
        if not isinstance(figures, dict):
            raise ValueError("results.json holds no results")
    except ValueError as error:
        submission.problems.append(str(error))
        return {}
    return figures


def _add_notebooks(
    root: Path, submission: Submission, figures: dict, given: dict[str, str]
) -> None:
    """Add the notebooks and their pages, with what is `given` in their first cells."""
    blank: dict[str, list[str]] = {label: [] for label in given}
    for short, file_name in NAMES.items():
        path = root / "notebooks" / file_name
        if not path.is_file():
            submission.problems.append(f"notebooks/{file_name} is missing")
            continue
        try:
            notebook = nbformat.read(path, as_version=4)
            empty = [
                label for label in given if not fill_in(notebook, label, given[label])
            ]
        except Exception as error:  # nbformat raises all sorts for what is no notebook
            submission.problems.append(f"{file_name} is not a valid notebook: {error}")
            continue
        found = [*flaws(notebook), *older_than_code(notebook, short, figures, root)]
        submission.problems += [f"{file_name}: {flaw}" for flaw in found]
        if found:
            submission.outdated.add(short)
        for label in empty:
            blank[label].append(file_name)
        written = f"{nbformat.writes(notebook)}\n".encode()
        content = written if any(given.values()) else path.read_bytes()
        export = functools.partial(html_export.notebook_to_html, notebook)
        submission.add(f"notebooks/{file_name}", content, export)
    submission.warnings += [
        f"WARNING: the row `| {label} | |` is blank in {', '.join(where)}: "
        f"fill it in, or give --{label.lower()}"
        for label, where in blank.items()
        if where
    ]


def _add_answer(root: Path, submission: Submission, page: str) -> None:
    path = root / page
    if not path.is_file():
        if not any(page in problem for problem in submission.problems):
            submission.problems.append(f"{page} is missing")
        return
    text = path.read_text(encoding="utf-8")
    language = "he" if page.endswith(".he.md") else "en"
    export = functools.partial(html_export.page_to_html, text, language, path.parent)
    submission.add(page, path.read_bytes(), export)


def _belongs(path: Path) -> bool:
    return path.is_file() and not any(path.match(pattern) for pattern in LEFT_OUT)


def _add_readme(
    root: Path, submission: Submission, figures: dict, video: str | None
) -> None:
    """Add the link to the video and the first page to read; warn of other weights."""
    if video is None:
        path = root / VIDEO_LINK
        video = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    video = video.strip()
    if problem := link_problem(video):
        submission.problems.append(problem)
    weights = str(figures.get("provenance", {}).get("weights", "unknown"))
    notebooks = {short: Path(name).stem for short, name in NAMES.items()}
    stand_in = "tiny_imagenet" in weights
    template = templates(Path(__file__).parent).get_template
    if stand_in:
        warning = template("stand_in_warning.txt").render(weights=weights)
        submission.warnings.append(warning.rstrip())
    text = template("zip_readme.md").render(
        notebooks=notebooks, video=video, weights=weights, stand_in=stand_in
    )
    submission.files["video_link.txt"] = f"{video}\n".encode()
    submission.add("README.md", text.encode(), lambda: html_export.page_to_html(text))
