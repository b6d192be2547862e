"""Notebooks and pages of Markdown as HTML that needs nothing but the one file.

nbconvert does the work. Its own templates ask the network for scripts, most of all to
typeset formulas; so we give it a plain template, and turn LaTeX into MathML, which
browsers typeset themselves. Figures are part of the file.
"""

import re
from functools import cache
from html import escape, unescape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from jinja2 import pass_context
from jinja2.runtime import Context
from math_core import LatexError, LatexToMathML
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

#: The space after a row, as in `\\[1ex]`: MathML has none, the style sheet gives it.
ROW_SPACE = re.compile(r"\\\\\s*\[-?[\d.]+\s*[a-z]{2}\]")

TEMPLATE = """
{%- extends 'display_priority.j2' -%}
{%- block header -%}
<!DOCTYPE html>
<html lang="{{ resources.language_code }}" dir="{{ resources.direction }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ resources.title | escape_html }}</title>
<style>
{{ resources.style }}
</style>
</head>
<body>
<main>
{% endblock header -%}
{%- block footer -%}</main>
</body>
</html>
{% endblock footer -%}
{%- block markdowncell -%}
<section>{{ cell.source | markdown2html }}</section>
{% endblock markdowncell -%}
{%- block input -%}
<div class="input"><span class="number">[{{ cell.execution_count or " " }}]</span>
{{ cell.source | highlight_code(metadata=cell.metadata) }}</div>
{% endblock input -%}
{%- block output -%}<div class="output">{{ super() }}</div>
{% endblock output -%}
{%- block execute_result -%}
{%- block data_priority scoped -%}{{ super() }}{%- endblock data_priority -%}
{%- endblock execute_result -%}
{%- block stream -%}<pre>{{ output.text | ansi2html }}</pre>{%- endblock stream -%}
{%- block error -%}<pre>{{ super() }}</pre>{%- endblock error -%}
{%- block traceback_line -%}{{ line | ansi2html }}
{% endblock traceback_line -%}
{%- block data_text -%}
<pre>{{ output.data['text/plain'] | ansi2html }}</pre>
{%- endblock data_text -%}
{%- block data_html -%}{{ output.data['text/html'] }}{%- endblock data_html -%}
{%- block data_markdown -%}
{{ output.data['text/markdown'] | markdown2html }}
{%- endblock data_markdown -%}
{%- block data_latex -%}
{{ output.data['text/latex'] | markdown2html }}
{%- endblock data_latex -%}
{%- macro figure(number, type, base64) -%}
<img src="data:{{ type }};base64,{{ base64 | replace('\n', '') }}"
 alt="Figure drawn by code cell {{ number }}">
{%- endmacro -%}
{%- block data_png -%}
{{ figure(cell.execution_count, 'image/png', output.data['image/png']) }}
{%- endblock data_png -%}
{%- block data_jpg -%}
{{ figure(cell.execution_count, 'image/jpeg', output.data['image/jpeg']) }}
{%- endblock data_jpg -%}
{%- block data_svg -%}
{%- set base64 = output.data['image/svg+xml'] | text_base64 -%}
{{ figure(cell.execution_count, 'image/svg+xml', base64) }}
{%- endblock data_svg -%}
"""

STYLE = """
body { margin: 0; color: #1b1b1b; background: #fff;
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 1.6em 0 0.6em; }
h1 { margin-top: 0.5em; }
h2 { border-bottom: 1px solid #ccc; padding-bottom: 0.2em; }
a { color: #0550ae; }
img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8em 0; }
th, td { padding: 0.25em 0.8em; border-bottom: 1px solid #ddd; text-align: start; }
thead tr:not(:has(th:not(:empty))) { display: none; }
blockquote { margin: 1em 0; padding: 0 1em; border-inline-start: 4px solid #ccc; }
pre, code, .number { font-size: 13.5px;
  font-family: ui-monospace, Consolas, Menlo, "DejaVu Sans Mono", monospace; }
pre { margin: 0; padding: 0.6em 0.8em; line-height: 1.4; overflow-x: auto; }
.output pre { white-space: pre-wrap; overflow-wrap: anywhere; }
:not(pre) > code { background: #f0f1f3; padding: 0.1em 0.3em; border-radius: 3px;
  overflow-wrap: anywhere; }
pre, code, math, .formula { direction: ltr; unicode-bidi: isolate; text-align: left; }
section > pre, section .highlight { background: #f6f7f9; margin: 0.8em 0; }
.input { position: relative; margin: 1em 0 0.3em; background: #f6f7f9;
  border: 1px solid #d8dbe0; border-radius: 3px; }
.number { position: absolute; right: 100%; top: 0.7em; padding-right: 0.6em;
  color: #6a6a6a; }
.output { margin: 0.3em 0; overflow-x: auto; }
.formula { display: block; overflow-x: auto; overflow-y: hidden; padding: 0.4em 0; }
math { font-family: "STIX Two Math", "Cambria Math", "Latin Modern Math",
  "DejaVu Math TeX Gyre", "Noto Sans Math", math; }
mtd { padding-top: 0.3em; padding-bottom: 0.3em; }
menclose[notation="box"] { border: 1px solid; padding: 0.3em; }
@media (max-width: 70rem) {
  .number { position: static; display: block; padding: 0.4em 0.8em 0; }
}
@media (max-width: 40rem) { main { padding: 0.5rem 0.8rem 3rem; } }
@media print { pre { white-space: pre-wrap; } .input, img { break-inside: avoid; } }
"""


class FormulaError(ValueError):
    """A formula that can't be converted; the text shows it."""


class NotSelfContained(ValueError):
    """The page would need other files or the network to be shown."""


def notebook_to_html(notebook: NotebookNode) -> str:
    """A whole HTML page of a notebook with its outputs.

    Raises FormulaError for LaTeX that has no MathML, and NotSelfContained.
    """
    return _export(notebook, "en", Path())


def page_to_html(markdown: str, language: str = "en", folder: Path = Path()) -> str:
    """A whole HTML page of a Markdown text; right to left in Hebrew.

    language: ISO 639-1 code, "en" or "he".
    folder: where the text's relative image paths start.
    Raises FormulaError and NotSelfContained.
    """
    cell = nbformat.v4.new_markdown_cell(markdown, id="page")
    return _export(nbformat.v4.new_notebook(cells=[cell]), language, folder)


def external_resources(html: str) -> list[str]:
    """What a browser would load to show this page, apart from the page itself.

    Scripts, style sheets, fonts, images and frames; not links that one may follow.
    """
    soup = BeautifulSoup(html, features="html.parser")
    found = [tag["href"] for tag in soup.find_all("link", href=True)]
    found += [tag["src"] for tag in soup.find_all(src=True)]
    styles = [tag.text for tag in soup.find_all("style")]
    styles += [tag["style"] for tag in soup.find_all(style=True)]
    for style in styles:
        found += re.findall(r"url\(\s*['\"]?([^'\")]+)", style)
        found += re.findall(r"@import\s+['\"]([^'\"]+)", style)
    return [address for address in found if not address.startswith("data:")]


def _export(notebook: NotebookNode, language: str, folder: Path) -> str:
    titles = re.findall(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    resources = {
        "direction": "rtl" if language == "he" else "ltr",
        "title": titles[0] if titles else "",
        "style": STYLE + HtmlFormatter().get_style_defs(".highlight"),
        "metadata": {"path": str(folder)},
    }
    html, _ = _exporter(language).from_notebook_node(notebook, resources)
    if needed := external_resources(html):
        raise NotSelfContained(f"the page needs {', '.join(needed)}")
    return html


@cache
def _exporter(language: str) -> HTMLExporter:
    return _Exporter(raw_template=TEMPLATE, language_code=language)


class _Exporter(HTMLExporter):
    @pass_context
    def markdown2html(self, context: Context, source: str) -> str:
        """The template's filter of this name, with our own renderer."""
        renderer = _Renderer(
            escape=False,
            embed_images=True,
            path=context["resources"]["metadata"]["path"],
            attachments=context.get("cell", {}).get("attachments", {}),
        )
        return MarkdownWithMath(renderer).render(source)


class _Renderer(IPythonRenderer):
    """Markdown to HTML. The methods' names and parameters are mistune's."""

    def inline_math(self, body: str) -> str:
        return mathml(body, block=body.lstrip().startswith(r"\displaystyle"))

    def block_math(self, body: str) -> str:
        return mathml(body, block=True)

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", block=True)

    def heading(self, text: str, level: int, **attributes: object) -> str:
        """A heading with the ids to which Jupyter's and GitHub's links lead."""
        plain = BeautifulSoup(text, features="html.parser").text.strip()
        jupyter = plain.replace(" ", "-")
        github = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        alias = f'<a id="{escape(github)}"></a>' if github != jupyter else ""
        return (
            f'<h{level} id="{escape(jupyter)}"{_direction(text)}>'
            f"{alias}{text}</h{level}>\n"
        )

    def inline_html(self, html: str) -> str:
        """A tag as it stands: it comes alone, its text and closing tag follow."""
        return html

    def paragraph(self, text: str) -> str:
        return f"<p{_direction(text)}>{text}</p>\n"

    def list_item(self, text: str) -> str:
        return f"<li{_direction(text)}>{text}</li>\n"

    def table(self, text: str) -> str:
        return f'<div class="scroll"><table>\n{text}</table></div>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        """Links from page to page lead to the other page's HTML."""
        if "://" not in url:
            url = re.sub(r"\.(md|ipynb)(?=$|#)", ".html", url)
        return super().link(text, url, title)


def mathml(latex: str, *, block: bool) -> str:
    """A formula as MathML; in block style as a line of its own, scrolled if too wide.

    Raises FormulaError, showing the formula, when it has no MathML.
    """
    try:
        math = _converter().convert_with_local_state(
            ROW_SPACE.sub(r"\\\\", latex), displaystyle=block
        )
    except LatexError as error:
        raise FormulaError(f"can't convert this formula: {latex} ({error})") from error
    return f'<span class="formula">{math}</span>' if block else math


@cache
def _converter() -> LatexToMathML:
    return LatexToMathML(fancy_error=False)


def _direction(html: str) -> str:
    """The attribute that sets a mostly Hebrew block from right to left."""
    text = unescape(re.sub(r"<(math|code)\b.*?</\1>|<[^>]*>", " ", html, flags=re.S))
    hebrew = len(re.findall(r"[א-ת]", text))
    latin = len(re.findall(r"[A-Za-z]", text))
    return ' dir="rtl"' if hebrew > latin else ""
