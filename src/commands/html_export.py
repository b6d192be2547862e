"""Notebooks and Markdown as one file of HTML: nbconvert, but LaTeX as MathML."""

import re
from html import escape, unescape
from pathlib import Path

from bs4 import BeautifulSoup
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode, v4
from pygments.formatters import HtmlFormatter

CONVERT = LatexToMathML(fancy_error=False).convert_with_local_state
LIGHT, DARK = (
    HtmlFormatter(style=name, nobackground=True).get_style_defs(".highlight")
    for name in ("default", "github-dark")
)
COLOURS = f"{LIGHT}\n@media screen and (prefers-color-scheme: dark) {{\n{DARK}\n}}"
#: A letter with its primes, outside of text.
PRIMES = re.compile(r"(\\text\w*\{[^}]*\})|(\b[A-Za-z])('+)")


class FormulaError(ValueError):
    """A formula that can't be converted; the text shows it."""


def page_to_html(markdown: str, language: str = "en", folder: Path = Path()) -> str:
    """A whole page of a Markdown text, with its images in `folder`."""
    cell = v4.new_markdown_cell(markdown, id="page")
    return notebook_to_html(v4.new_notebook(cells=[cell]), language, folder)


def notebook_to_html(notebook: NotebookNode, language="en", folder=Path()) -> str:
    """A whole page of a notebook. Both raise FormulaError."""
    renderer = _Renderer(escape=False, embed_images=True, path=str(folder))
    template = str(Path(__file__).with_name("page.html.j2"))
    exporter = HTMLExporter(template_file=template, language_code=language)
    exporter.register_filter("markdown2html", MarkdownWithMath(renderer).render)
    return exporter.from_notebook_node(notebook, {"css": COLOURS})[0]


class _Renderer(IPythonRenderer):  # names and parameters of methods are mistune's
    def inline_math(self, body: str) -> str:
        return mathml(body, block=body.lstrip().startswith(r"\displaystyle"))

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    def heading(self, text: str, level: int, **attributes: object) -> str:
        """A heading with the id that Jupyter gives it."""
        name = BeautifulSoup(text, "html.parser").text.strip().replace(" ", "-")
        return f'<h{level} id="{escape(name)}"{_direction(text)}>{text}</h{level}>\n'

    def inline_html(self, html: str) -> str:
        return html  # a tag comes alone: its text and closing tag follow

    def paragraph(self, text: str) -> str:
        if re.fullmatch(r"(<a id=[^>]*></a>\s*)+", text):
            return text  # an anchor above a heading: no empty line
        return f"<p{_direction(text)}>{text}</p>\n"

    def list_item(self, text: str) -> str:
        return f"<li{_direction(text)}>{text}</li>\n"

    def link(self, text: str, url: str, title: str | None = None) -> str:
        page = re.sub(r"\.(md|ipynb)(?=$|#)", ".html", url)  # of ours: as HTML, too
        return super().link(text, url if "://" in url else page, title)


def mathml(latex: str, *, block: bool) -> str:
    """A formula as MathML; in block style on a line of its own. Or a FormulaError."""
    rows = re.sub(r"\\\\\s*\[-?[\d.]+\s*[a-z]{2}\]", r"\\\\", latex)  # without \\[1ex]
    try:
        math = CONVERT(PRIMES.sub(_whole_primes, rows), displaystyle=block)
    except LatexError as error:
        raise FormulaError(f"can't convert this formula: {latex} ({error})") from error
    return f'<span class="formula">{math}</span>' if block else math


def _whole_primes(found: re.Match) -> str:
    """The letter and its primes side by side: f' raises what a font has raised."""
    text, letter, primes = found.groups()
    return text or "{" + letter + r"\prime" * len(primes) + "}"


def _direction(html: str) -> str:
    """The attribute that sets a mostly Hebrew block from right to left."""
    text = unescape(re.sub(r"<(math|code)\b.*?</\1>|<[^>]*>", " ", html, flags=re.S))
    hebrew, latin = (len(re.findall(f"[{some}]", text)) for some in ("א-ת", "A-Za-z"))
    return ' dir="rtl"' if hebrew > latin else ""
