"""Pages that need nothing but themselves: formulas, figures, directions, links."""

import base64
import random
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import sympy
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from src.commands.html_export import (
    FormulaError,
    mathml,
    notebook_to_html,
    page_to_html,
)
from src.common.project import ANSWERS, ROOT
from src.common.project import NOTEBOOKS as NAMES

#: The smallest PNG there is: one transparent pixel.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)


def parse(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, features="html.parser")


def external_resources(html: str) -> list[str]:
    """What a browser would load to show this page; not links that one may follow."""
    soup = parse(html)
    found = [tag.get("src", tag.get("href")) for tag in soup.select("[src],link[href]")]
    styles = [tag.get("style", tag.text) for tag in soup.select("style,[style]")]
    found += re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", "\n".join(styles))
    return [address for address in found if not address.startswith("data:")]


def prose(html: str) -> str:
    """What a reader sees outside of code and printed output."""
    soup = parse(html)
    for tag in soup.find_all(["pre", "code", "style", "title"]):
        tag.decompose()
    return soup.text


def notebook(*outputs, source: str = "figure") -> nbformat.NotebookNode:
    """A title and one executed code cell with these outputs."""
    cell = new_code_cell(source, execution_count=1, outputs=list(outputs), id="code")
    return new_notebook(cells=[new_markdown_cell("# Title", id="title"), cell])


def shown(**data: str) -> nbformat.NotebookNode:
    """An output, e.g. shown(text_latex=...) of the type text/latex."""
    return new_output(
        "display_data", data={key.replace("_", "/"): data[key] for key in data}
    )


# Formulas ----------------------------------------------------------------------------


def test_a_derivative():
    tree = parse(mathml(r"\frac{\partial C}{\partial y_{i,j}}", block=False))
    numerator, denominator = tree.math.mfrac.find_all(recursive=False)
    assert numerator.text == "∂C"
    assert denominator.text == "∂yi,j"
    assert [part.text for part in denominator.msub.find_all(recursive=False)] == [
        "y",
        "i,j",
    ]


def test_aligned_rows_meet_at_the_ampersand_and_have_no_leftovers():
    latex = (
        r"\begin{aligned} a &= b \\[1ex] c &= \boxed{d} \\ [-0.5em] e &= f\end{aligned}"
    )
    tree = parse(mathml(latex, block=True))
    rows = [[cell.text for cell in row.find_all("mtd")] for row in tree.find_all("mtr")]
    assert rows == [["a", "=b"], ["c", "=d"], ["e", "=f"]]
    assert tree.find(notation="box").text == "d"
    sides = [re.search("text-align: ?(\\w+)", cell["style"])[1] for cell in tree.mtr]
    assert sides == ["right", "left"]


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", "(1234)"),
        (r"\begin{bmatrix} k_{2,1} \\ k_{1,1} \end{bmatrix}", "[k2,1k1,1]"),
        (r"\begin{cases} 1 & \text{if } i = m \\ 0 \end{cases}", "{1if i=m0"),
        (r"\operatorname{pad}_{p-1}(G) \star K^{\text{flip}}", "padp−1(G)⋆Kflip"),
        (r"\left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1", "⌊n+2p−ks⌋+1"),
        (r"X \in \mathbb{R}^{3 \times 3}", "X∈ℝ3×3"),
        (r"\tilde X_{i}", "X~i"),
        (r"3.6 \cdot 10^{-15} \le x < \tfrac12", "3.6⋅10−15≤x<12"),
        (r"\text{שגיאה} \%", "שגיאה%"),
    ],
)
def test_what_is_read(latex, text):
    shown = parse(mathml(latex, block=True)).text
    shown = re.sub(r"[\u2061-\u2063\s]", "", shown)  # invisible operators, spaces
    assert shown.replace("˜", "~") == text.replace(" ", "")


def test_matrices_of_sympy_keep_their_shape_and_symbols():
    draw = random.Random(13)
    for _ in range(50):
        rows, columns = draw.randint(1, 4), draw.randint(1, 4)
        symbols = sympy.Matrix(
            rows, columns, lambda i, j: sympy.Symbol(f"x_{{{i + 1},{j + 1}}}")
        )
        matrix = symbols * draw.randint(2, 9) + sympy.ones(rows, columns)
        tree = parse(mathml(rf"\displaystyle {sympy.latex(matrix)}", block=True))
        cells = [row.find_all("mtd") for row in tree.find_all("mtr")]
        assert [len(row) for row in cells] == [columns] * rows
        for i, row in enumerate(cells):
            for j, cell in enumerate(row):
                assert cell.msub.text == f"x{i + 1},{j + 1}"
                assert cell.text.endswith("+1")


def test_a_prime_is_as_large_as_its_letter():
    """A superscript would raise and shrink what the font has raised already."""
    formula = parse(mathml(r"n' = a''_{i'} + \text{don't}", block=False)).math
    assert formula.find("msup") is None
    assert re.sub(r"[\u2061-\u2063\s]", "", formula.text) == "n′=a′′i′+don’t"
    assert formula.msub.find_all(recursive=False)[0].text == "a′′"


@pytest.mark.parametrize("latex", [r"\nosuchcommand", r"\frac{a", r"\begin{cases} a"])
def test_what_cannot_be_converted_is_shown(latex):
    with pytest.raises(FormulaError, match=re.escape(latex)):
        mathml(latex, block=False)
    with pytest.raises(FormulaError, match=re.escape(latex)):
        page_to_html(f"It is ${latex}$.")


def test_formulas_are_found_wherever_they_stand():
    html = page_to_html(
        "# On $K$\n\nSo $x_1$ and *$y$*:\n\n$$\nz = 1\n$$\n\n"
        r"- \\(a\\) and \\[b\\]" + "\n\n| $c$ | d |\n|---|---|\n| e | $f$ |\n\n"
        r"\begin{align*} g &= h \end{align*}" + "\n"
    )
    formulas = [tag.text.strip() for tag in parse(html).find_all("math")]
    assert formulas == ["K", "x1", "y", "z=1", "a", "b", "c", "f", "g=h"]
    assert "$" not in prose(html) and "\\" not in prose(html)
    wide = [tag.math.text for tag in parse(html).select(".formula")]
    assert wide == ["z=1", "b", "g=h"]


def test_dollars_in_code_stay_as_they_are():
    html = page_to_html("`a $x$ b`\n\n```python\ncost = '$5 and $6'\n```\n")
    assert parse(html).find("math") is None
    assert "a $x$ b" in parse(html).code.text
    assert "'$5 and $6'" in parse(html).pre.text


def test_latex_outputs_are_typeset():
    html = notebook_to_html(notebook(shown(text_latex=r"$\displaystyle Y = x_{1}$")))
    (math,) = parse(html).select(".output .formula math")
    assert math.text == "Y=x1"
    assert math["display"] == "block"


# Everything in one file --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "data"),
    [("png", PNG + "\n"), ("jpeg", PNG), ("svg+xml", '<svg height="1"></svg>')],
)
@pytest.mark.parametrize("way", ["display_data", "execute_result"])
def test_figures_are_embedded_and_described(kind, data, way):
    output = new_output(way, data={f"image/{kind}": data, "text/plain": "a figure"})
    (image,) = parse(notebook_to_html(notebook(output))).select(".output img")
    assert re.sub(r"\s+", " ", image["alt"]) == "Figure drawn by code cell 1"
    address, shown = image["src"].split(",")
    assert address == f"data:image/{kind};base64"
    content = base64.b64decode(shown, validate=True)
    assert content == (data.encode() if "svg" in kind else base64.b64decode(PNG))


def test_image_files_are_embedded(tmp_path):
    (tmp_path / "picture.png").write_bytes(base64.b64decode(PNG))
    html = page_to_html("![a picture](picture.png)", folder=tmp_path)
    assert parse(html).img["src"] == f"data:image/png;base64,{PNG}"


def test_the_same_notebook_gives_the_same_page():
    nb = notebook(shown(image_png=PNG), shown(text_markdown="# Hi $x$"))
    assert notebook_to_html(nb) == notebook_to_html(nb)


# What is shown -----------------------------------------------------------------------


def test_source_and_outputs_in_order():
    html = notebook_to_html(
        notebook(
            new_output("stream", name="stdout", text="1 < 2 & \x1b[31mred\x1b[0m\n"),
            new_output(
                "execute_result", data={"text/plain": "<Tensor>"}, execution_count=1
            ),
            shown(text_html="<b>bold</b>", text_plain="not this"),
            shown(text_markdown="| a |\n|---|\n| $b$ |", text_plain="nor this"),
            source="if a < b:\n    print('שלום')",
        )
    )
    soup = parse(html)
    assert soup.select_one(".input .number").text == "[1]"
    assert soup.select_one(".input pre").text.strip() == "if a < b:\n    print('שלום')"
    texts = [output.text.strip() for output in soup.select(".output")]
    assert texts[0] == "1 < 2 & red"
    assert texts[1] == "<Tensor>"
    assert texts[2] == "bold"
    assert soup.select_one("table math").text == "b"
    assert "not this" not in html and "nor this" not in html


def test_a_log_that_has_ended_without_lines_takes_no_room():
    html = notebook_to_html(notebook(new_output("display_data", data={})))
    assert parse(html).select(".output") == []


def test_the_title():
    soup = parse(page_to_html("# Less < more\n\n# Another\n"))
    assert soup.title.text == "Less < more"
    assert soup.h1.text == "Less < more"


def test_contents_lead_to_headings():
    link = "#What-of-nn.Conv2d,-and-why?-(6)"
    html = page_to_html(f"[there]({link})\n\n## What of `nn.Conv2d`, and why? (6)\n")
    soup = parse(html)
    assert soup.h2 == soup.find(id=unquote(soup.find("a", href=True)["href"])[1:])


def test_an_anchor_above_a_heading_leaves_no_empty_line():
    html = page_to_html('[there](#layer)\n\n<a id="layer"></a>\n## The layer · השכבה\n')
    anchor = parse(html).find(id="layer")
    assert anchor.parent.name == "section"
    assert anchor.find_next_sibling().name == "h2"


@pytest.mark.parametrize("name", NAMES.values())
def test_contents_arrive_in_jupyterlab(name):
    """It finds ids of `a` and generated ones of headings, but no Hebrew letters.

    So it was with JupyterLab 4.6 in a browser, which takes too long for a test.
    """
    cells = nbformat.read(ROOT / "notebooks" / name, 4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    ids = [heading.replace("`", "").replace(" ", "-") for heading in headings]
    ids += re.findall(r'^<a id="([^"]*)"></a>\n#+ ', text, flags=re.MULTILINE)
    links = re.findall(r"\]\(#([^\s)]*)\)", text)
    assert len(links) >= 5
    assert [link for link in links if not link.isascii() or link not in ids] == []


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        ("q1.he.md", "q1.he.html"),
        ("../notebooks/q1_convolution.ipynb#The-idea", None),
        ("q2.md#the-bias", "q2.html#the-bias"),
        ("https://a.example/readme.md", "https://a.example/readme.md"),
        ("../src/conv.py", "../src/conv.py"),
    ],
)
def test_links_between_pages(link, leads_to):
    html = page_to_html(f"[there]({link})")
    expected = leads_to or "../notebooks/q1_convolution.html#The-idea"
    assert parse(html).a["href"] == expected


# Directions --------------------------------------------------------------------------


def test_a_hebrew_page_runs_from_right_to_left():
    soup = parse(page_to_html("# שאלה\n\nפלט $y$ של `f(x)`\n", "he"))
    assert (soup.html["lang"], soup.html["dir"]) == ("he", "rtl")
    css = soup.style.text
    (rule,) = (line for line in css.splitlines() if "direction: ltr" in line)
    assert {"pre", "code", "math", "td"} <= set(
        re.findall(r"\w+", rule.partition("{")[0])
    )


@pytest.mark.parametrize(
    ("markdown", "direction"),
    [
        ("## א. The data set", None),
        ("## שאלה 1: שכבת קונבולוציה", "rtl"),
        ("כתבו מחלקה בשם `Conv2dByHand` מעל $X$", "rtl"),
        ("- בדקו את דיוק המודל", "rtl"),
        ("Hebrew: שלום", None),
    ],
)
def test_hebrew_blocks_of_an_english_page(markdown, direction):
    soup = parse(page_to_html(markdown))
    assert soup.html["dir"] == "ltr"
    assert soup.section.find(["h2", "p", "li"]).get("dir") == direction


# The real ones -----------------------------------------------------------------------


def pages() -> list[Path]:
    answers = [p for p in sorted(ANSWERS.glob("q*.md")) if "vision" not in p.name]
    return [*(ROOT / "notebooks" / name for name in NAMES.values()), *answers]


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_page_is_whole(path):
    """No formula is left as LaTeX, nothing is loaded, every link in it arrives."""
    if path.suffix == ".ipynb":
        html = notebook_to_html(nbformat.read(path, 4))
    else:
        language = "he" if path.name.endswith(".he.md") else "en"
        html = page_to_html(path.read_text(encoding="utf-8"), language, path.parent)
    assert external_resources(html) == []
    assert "<script" not in html
    assert re.findall(r"https?://[^\s\"'<]*\.(?:js|css|woff2?|ttf)\b", html) == []
    assert re.findall(r"\$[^$\n]*\$|\\[a-zA-Z(\[]", prose(html)) == []
    soup = parse(html)
    ids = {tag["id"] for tag in soup.find_all(id=True)}
    links = [unquote(a["href"])[1:] for a in soup.find_all("a", href=re.compile("^#"))]
    assert [link for link in links if link not in ids] == []
    assert path.suffix != ".ipynb" or len(links) >= 5  # its contents


def test_tags_hold_what_they_held():
    html = page_to_html('From <em dir="ltr">80 million *tiny* images</em>, `a` too.')
    (tag,) = parse(html).find_all("em", dir="ltr")
    assert tag.text == "80 million tiny images"
    block = page_to_html("<details>\n<summary>*More*</summary>\n</details>\n")
    assert parse(block).details.summary.text == "*More*"
