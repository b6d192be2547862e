"""The written answers: Markdown templates filled with the figures of `results.json`.

A Jinja template in `answer_templates/` holds the prose, and in it

    {{ transfer.test_accuracy | show(".2%") }}          a figure, in Python's format
    {% if facts.scratch_ahead %} … {% else %} … {% endif %}  text that depends on some

so that no figure is typed, and no sentence can outlive the figures that made it true.
What the figures of question 3 imply is worked out in `facts.jinja`.
"""

import functools
import re
from pathlib import Path

from jinja2 import Environment, UndefinedError

from src import transfer_tables
from src.analysis import Mistake
from src.common import pages
from src.common.project import ROOT
from src.common.results import read_results
from src.experiments import Point
from src.weights import STANDIN_NAME

TEMPLATES = Path(__file__).parent / "answer_templates"
README_TEMPLATE = "readme_results.md"
#: Those of the walkthrough need not be there: it is not handed in.
PAGES = sorted(p.name for p in TEMPLATES.glob("*.md") if p.name != README_TEMPLATE)
RESULTS = "data/results.json"


def render(figures: dict, root: Path = ROOT) -> dict[str, str]:
    """Every page's text by its path, e.g. "answers/q1.md", from the recorded results.

    If there is a README.md in `root`, it is among them, with its block of results.
    Raises ValueError, naming the page, where a figure is missing or does not fit.
    """
    texts = {f"answers/{page}": fill(page, figures) for page in PAGES}
    if (readme := root / "README.md").is_file():
        text = readme.read_text(encoding="utf-8")
        filled = fill(README_TEMPLATE, figures)
        texts["README.md"] = pages.fill_block(text, "results", lambda _: filled)
    return texts


def update_answers(root: Path = ROOT) -> list[str]:
    """Bring the pages in `root` up to date with its results; return those changed."""
    return pages.write_outdated(render(read_results(root / RESULTS), root), root)


def fill(page: str, figures: dict) -> str:
    """One template with the figures in their places."""
    try:
        text = _templates(TEMPLATES).get_template(page).render(figures)
    except (UndefinedError, TypeError, ValueError) as error:
        raise ValueError(
            f"{page} can't be filled from {RESULTS} ({error}); run `python3 -m src run`"
        ) from error
    return isolate(text) if page.endswith(".he.md") else text


@functools.cache
def _templates(folder: Path) -> Environment:
    """The templates of a folder, with what they can call."""
    environment = pages.templates(folder)
    environment.filters |= {
        "as_mistake": lambda recorded: Mistake(**recorded),
        "as_points": lambda recorded: [Point(**point) for point in recorded],
    }
    environment.globals |= {
        "mistake_rows": transfer_tables.mistake_rows,
        "standin_weights": STANDIN_NAME,
        "sizes_ahead": transfer_tables.sizes_ahead,
    }
    return environment


LEFT_TO_RIGHT = re.compile(
    r"(?P<block>^```.*?^```$|^\$\$\n.*?^\$\$$)|(?P<inline>`[^`\n]+`|\$[^$\n]+\$)",
    re.MULTILINE | re.DOTALL,
)


def isolate(text: str) -> str:
    """Hebrew Markdown with each piece of code and each formula marked left-to-right.

    Without it a browser would move the brackets of `f(x)`, and the sides of an
    equation, to where they stand in a text from right to left. The space before an
    inline formula is for GitHub, which only then takes it for one.
    """

    def mark(match: re.Match) -> str:
        if match["block"]:
            return f'<div dir="ltr">\n\n{match[0]}\n\n</div>'
        space = " " if match[0].startswith("$") else ""
        return f'<span dir="ltr">{space}{match[0]}</span>'

    return LEFT_TO_RIGHT.sub(mark, text)
