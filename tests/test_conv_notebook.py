"""Question 1's notebook: its cells, executed as they stand and with other variables."""

import ast
import inspect
import itertools
import math
import pickle
import re
import textwrap

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from torch import nn

from src import conv, conv_plots
from src.common.project import DATA, ROOT
from src.common.project import NOTEBOOKS as NAMES
from src.conv import Conv2d

CELLS = nbformat.read(ROOT / "notebooks" / NAMES["q1"], as_version=4).cells
CODE = [cell.source for cell in CELLS if cell.cell_type == "code"]
PROSE = "\n\n".join(cell.source for cell in CELLS if cell.cell_type == "markdown")
IMAGE = """image = torch.tensor(
    [[1, 2, 3, 2, 1], [4, 5, 6, 5, 4], [7, 8, 9, 8, 7], [1, 3, 5, 3, 1]]
)"""
KERNEL = "kernel = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]])"
STEP = "stride, padding = 2, 1"


@pytest.fixture
def execute():
    """A function that executes the cell with some text in it, in one namespace."""
    modules = (ast, inspect, math, pickle, textwrap, torch)
    scope = {module.__name__: module for module in modules} | vars(conv)
    scope |= {"nn": nn, "DATA": DATA, "conv_plots": conv_plots}

    def run(text: str, changes: dict[str, str] | None = None) -> dict:
        (source,) = [source for source in CODE if text in source]
        for old, new in (changes or {}).items():
            assert source.count(old) == 1, old
            source = source.replace(old, new)
        exec(compile(source, "cell", "exec"), scope)
        return scope

    yield run
    plt.close("all")


def test_the_graded_code_is_on_the_page():
    marked = re.findall(
        r"^(?:class|def) (\w+).*# @save$", "\n".join(CODE), re.MULTILINE
    )
    assert marked == ["Conv2d", "all_windows", "zero_pad", "forward_backward"]


def test_nothing_of_it_fetches_cifar10():
    assert not [source for source in CODE if "cifar10" in source]
    assert "cifar10" not in vars(conv_plots)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "height", "width"),
    [
        ([[1, 0, -1], [2, 0, -2], [1, 0, -1]], 2, 1, (4, 3, 2, 1), (5, 3, 3, 0)),
        ([[1, 0, -1], [2, 0, -2], [1, 0, -1]], 3, 1, (4, 3, 2, 0), (5, 3, 2, 1)),
        ([[1, 2, 3, 4, 5]] * 5, 1, 2, (4, 5, 4, 0), (5, 5, 5, 0)),
        ([[1, 2, 3, 4, 5]] * 5, 2, 1, (4, 5, 1, 1), (5, 5, 2, 0)),
        ([[1, -1]], 1, 0, (4, 1, 4, 0), (5, 2, 4, 0)),
        ([[2], [3], [4], [5]], 4, 0, (4, 4, 1, 0), (5, 1, 2, 0)),
    ],
)
def test_teaching_cells_with_other_variables(
    execute, capsys, kernel, stride, padding, height, width
):
    """What is printed and drawn: sizes counted here by hand, values by nn.Conv2d."""
    changes = {
        KERNEL: f"kernel = torch.tensor({kernel})",
        STEP: f"stride, padding = {stride}, {padding}",
    }
    scope = execute(IMAGE, changes)
    printed = capsys.readouterr().out.splitlines()
    for line, name, (n, k, out, left) in zip(
        printed, ("height", "width"), (height, width), strict=True
    ):
        sum_ = rf"⌊({n} + 2·{padding} - {k}) / {stride}⌋ + 1 = {out}"
        assert line.split(maxsplit=1) == [
            f"{name}:",
            f"{sum_}, {left} left over at the end",
        ]

    theirs = nn.Conv2d(1, 1, (height[1], width[1]), stride, padding, bias=False)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(kernel))
        reference = theirs(scope["image"].float()[None])[0]
    assert reference.shape == (height[2], width[2])
    flat = list(itertools.chain(*kernel))
    padded, drawn_kernel, output = plt.gcf().axes
    drawn = [float(text.get_text()) for text in output.texts]
    assert drawn == reference.flatten().tolist()
    assert [int(text.get_text()) for text in drawn_kernel.texts] == flat
    assert len(padded.texts) == (4 + 2 * padding) * (5 + 2 * padding)
    execute("equal to the loops")
    assert "equal to the loops: True" in capsys.readouterr().out


def test_the_layers_check_notices_another_result(execute):
    scope = execute(IMAGE)
    scope["expected"][0, 0] += 1
    with pytest.raises(AssertionError):
        execute("equal to the loops")


def test_windows_become_columns(execute, capsys):
    """Each column is looked up in the images again, pixel by pixel."""
    scope = execute("permuted = ")
    images, columns = scope["images"], scope["columns"]
    assert images.shape == (2, 2, 2, 4) and columns.shape == (8, 6)
    for image in range(2):
        for position in range(3):
            expected = [
                images[image, channel, row, position + column].item()
                for channel in range(2)
                for row in range(2)
                for column in range(2)
            ]
            assert columns[:, 3 * image + position].tolist() == expected
    kernel = scope["weights"].reshape(1, 2, 2, 2).float()
    reference = nn.functional.conv2d(images.float(), kernel).flatten()
    assert scope["product"].tolist() == reference.tolist()
    shapes = re.findall(
        r"^\w+ +(\[[\d, ]+\]) +(\[.*\])$", capsys.readouterr().out, re.M
    )
    assert [shape for shape, _ in shapes] == [
        "[2, 2, 2, 4]",
        "[2, 2, 2, 2, 1, 3]",
        "[2, 2, 2, 2, 1, 3]",
        "[8, 6]",
    ]


@pytest.mark.parametrize("place", range(4))
def test_comparison_finds_an_error_in_each_quantity(execute, place):
    """Of exactly the size of the one that is put in, and nowhere else."""
    scope = execute("def compare(")
    run = scope["forward_backward"]

    def wrong(layer, images, output_grad):
        found = list(run(layer, images, output_grad))
        if isinstance(layer, Conv2d):
            found[place] = found[place].detach().clone()
            found[place].flatten()[-1] -= 0.5
        return found

    scope["forward_backward"] = wrong
    layers = Conv2d(3, 4, (3, 2), 2, 1).double(), nn.Conv2d(3, 4, (3, 2), 2, 1).double()
    found = scope["compare"](*layers, torch.randn(2, 3, 7, 6, dtype=torch.float64))
    assert list(found) == ["output", "input_grad", "weight_grad", "bias_grad"]
    errors = list(found.values())
    assert errors.pop(place) == pytest.approx(0.5, abs=1e-12)
    assert max(errors) < 1e-12


def test_comparison_refuses_another_shape(execute):
    layers = Conv2d(3, 4, 3, stride=1), nn.Conv2d(3, 4, 3, stride=2)
    with pytest.raises(RuntimeError):
        execute("def compare(")["compare"](*layers, torch.randn(2, 3, 8, 8))


def test_comparison_of_photographs(execute, capsys):
    execute("def compare(")
    scope = execute("sample/test_batch")
    assert scope["photos"].shape == (500, 3, 32, 32)
    assert scope["photos"].min() == 0 and scope["photos"].max() == 1
    assert "torch.float64 (2, 3, 32, 32) to (2, 8, 15, 16)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "banned", ["nn.functional.linear", "torch.nn.functional.linear", "F.linear"]
)
def test_guideline_5_is_checked(execute, monkeypatch, banned):
    """The check passes on the class as it is, and fails on one that breaks the rule."""
    scope = execute("ast.walk(tree)")
    assert scope["used"] == {"nn.Parameter", "torch.addmm", "torch.empty"}
    honest = inspect.getsource
    monkeypatch.setattr(
        inspect, "getsource", lambda thing: honest(thing).replace("torch.addmm", banned)
    )
    with pytest.raises(AssertionError):
        execute("ast.walk(tree)")


def test_every_guideline_has_its_heading_in_both_languages():
    """A number, English, then Hebrew, under an anchor that the contents link to."""
    headings = re.findall(
        r'^<a id="([a-z-]+)"></a>\n## (1\.\d) .+ · [\u0590-\u05ff ]+$',
        PROSE,
        re.MULTILINE,
    )
    assert [number for _, number in headings] == [f"1.{n}" for n in range(1, 7)]
    contents = re.search(r"\*\*Contents:\*\* (.+)", PROSE)[1]
    linked = re.findall(r"\(#([a-z-]+)\)", contents)
    assert linked == re.findall(r'<a id="([a-z-]+)"></a>\n## ', PROSE)


def test_the_main_part_is_short():
    """At most 650 words before the appendix, 250 in it; formulas and tables apart."""
    main, appendix = PROSE.split('<a id="beyond"></a>')
    left_out = r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|<[^>]+>|^\|[^\n]*$"
    for text, most in ((main, 650), (appendix, 250)):
        text = re.sub(left_out, " ", text, flags=re.DOTALL | re.MULTILINE)
        assert len(re.findall(r"[\w'-]+", text)) <= most
