"""Filled-in pages: how figures are shown, blocks filled, and what is out of date."""

import jinja2
import pytest

from src.common import pages


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (3.54e-15, ".1e", r"3.5 \cdot 10^{-15}"),
        (0.0, ".1e", "0"),
        (12000.0, ".0e", r"1 \cdot 10^{4}"),
        (0.003, "g", "0.003"),
        (0.12345, ".1%", "12.3%"),
        (1234, ",", "1,234"),
    ],
)
def test_formats(value, spec, text):
    assert pages.show(value, spec) == text


def fill(folder, text: str, **figures: object) -> str:
    (folder / "page.md").write_text(text, encoding="utf-8")
    return pages.templates(folder).get_template("page.md").render(figures)


@pytest.mark.parametrize(
    ("flag", "expected"), [(True, "a\nyes\nb\nc[x]\nd\n"), (False, "a\nno\nb\nc\nd\n")]
)
def test_lines_of_tags_leave_nothing_behind(tmp_path, flag, expected):
    text = (
        "a\n{% if flag %}\nyes\n{% else %}\nno\n{% endif %}\n"
        "b\nc{% if flag %}[x]{% endif +%}\nd\n"
    )
    assert fill(tmp_path, text, flag=flag) == expected


def test_figures_in_a_template(tmp_path):
    text = '{{ a | show(".1%") }} & {{ b | values | max }} '
    text += '{{ [1, 2000] | map("show", ",") | join }}'
    assert fill(tmp_path, text, a=0.5, b={"x": 1, "y": 3}) == "50.0% & 3 12,000"


@pytest.mark.parametrize(
    "text", ["{{ a.b }}", '{{ a.b | show(".1%") }}', "{% if a.b %}{% endif %}"]
)
def test_what_is_undefined_is_an_error(tmp_path, text):
    with pytest.raises(jinja2.UndefinedError, match="has no attribute 'b'"):
        fill(tmp_path, text, a={})


def test_only_what_stands_in_the_block_is_replaced():
    text = (
        "<!-- a -->\nold\n\nlines <!-- /b -->\n<!-- /a -->\n"
        "<!-- ab -->\nkept\n<!-- /ab -->\n<!-- a: X, Y -->\n<!-- /a -->\nafter\n"
    )
    asked = []

    def content(wanted: str) -> str:
        asked.append(wanted)
        return f"new \\1 {len(asked)}\n"

    assert pages.fill_block(text, "a", content) == (
        "<!-- a -->\nnew \\1 1\n<!-- /a -->\n"
        "<!-- ab -->\nkept\n<!-- /ab -->\n"
        "<!-- a: X, Y -->\nnew \\1 2\n<!-- /a -->\nafter\n"
    )
    assert asked == ["", "X, Y"]
    assert pages.fill_block("no block", "a", content) == "no block"
    assert len(asked) == 2


def test_only_what_differs_is_written(tmp_path):
    texts = {"same.md": "שלום\n", "old.md": "new\n", "folder/missing.md": "new\n"}
    (tmp_path / "same.md").write_text("שלום\n", encoding="utf-8")
    (tmp_path / "old.md").write_text("old\n")
    untouched = (tmp_path / "same.md").stat().st_mtime_ns
    changed = {"old.md": "new\n", "folder/missing.md": "new\n"}
    assert pages.outdated(texts, tmp_path) == changed
    assert (tmp_path / "old.md").read_text() == "old\n"
    assert pages.write_outdated(texts, tmp_path) == list(changed)
    assert {name: (tmp_path / name).read_text("utf-8") for name in texts} == texts
    assert (tmp_path / "same.md").stat().st_mtime_ns == untouched
    assert pages.write_outdated(texts, tmp_path) == []
