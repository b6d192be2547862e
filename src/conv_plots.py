"""The figures of questions 1 and 2: each drawn from plain data, and returned."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.plots import BLUE, GREEN, ORANGE, hide_axes


def backpropagation_windows() -> Figure:
    """A 3×3 image and a 2×1 kernel: what slides over what, forward and backward.

    Three matrices side by side, some windows outlined on each: the output, the kernel's
    gradient, and the image's gradient, with its border of zeros shaded.
    """
    image = _indexed("$x_{i,j}$", rows=3, columns=3)
    zeros = [["0"] * 3]
    output_grad = _indexed(r"$\dfrac{\partial C}{\partial y_{i,j}}$", rows=2, columns=3)
    in_image = {
        "$y_{1,1}=k_{1,1}x_{1,1}+k_{2,1}x_{2,1}$": (0, 0, 2, 1),
        "$y_{2,1}=k_{1,1}x_{2,1}+k_{2,1}x_{3,1}$": (1, 0, 2, 1),
    }
    of_kernel = {
        r"$\partial C/\partial k_{1,1}$": (0, 0, 2, 3),
        r"$\partial C/\partial k_{2,1}$": (1, 0, 2, 3),
    }
    of_image = {
        r"$\partial C/\partial x_{1,1}$": (0, 0, 2, 1),
        r"$\partial C/\partial x_{2,2}$": (1, 1, 2, 1),
        r"$\partial C/\partial x_{3,3}$": (2, 2, 2, 1),
    }
    kernel_title = "Kernel's gradient:\n" r"$\partial C/\partial Y$ slides over $X$"
    image_title = "Image's gradient: flipped $K$\n"
    image_title += r"slides over padded $\partial C/\partial Y$"
    return _matrices(
        (7.4, 4.5),
        ("Output:\n$K$ slides over $X$", image, in_image),
        (kernel_title, image, of_kernel),
        (image_title, zeros + output_grad + zeros, of_image),
    )


def _indexed(symbol: str, rows: int, columns: int) -> list[list[str]]:
    """A matrix of labels, each with its own indices, from 1, in place of i,j."""
    return [
        [symbol.replace("i,j", f"{i},{j}") for j in range(1, columns + 1)]
        for i in range(1, rows + 1)
    ]


#: (row, column, height, width) of some windows, counted from 0, by their names.
Windows = dict[str, tuple[int, int, int, int]]


def _matrices(
    size: tuple[float, float], *panels: tuple[str, list[list[str]], Windows]
) -> Figure:
    """Matrices side by side, each a title, labels and windows; cells of one size."""
    widths = [len(cells[0]) for _, cells, _ in panels]
    rows = max(len(cells) for _, cells, _ in panels)
    figure, axes = plt.subplots(1, len(panels), figsize=size, width_ratios=widths)
    for axis, panel in zip(axes, panels, strict=True):
        _windows_on(axis, *panel)
        middle = len(panel[1]) / 2
        axis.set(ylim=(middle + rows / 2 + 0.05, middle - rows / 2 - 0.05), aspect=1)
    return figure


def _windows_on(
    axis: Axes, title: str, cells: list[list[str]], windows: Windows
) -> None:
    """Draw labels as a matrix, "0" shaded; outline windows, apart if they overlap."""
    for row, labels in enumerate(cells):
        for column, label in enumerate(labels):
            shade = "#e6e6e6" if label == "0" else "white"
            cell = Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="#b0b0b0")
            axis.add_patch(cell)
            centre = (column + 0.5, row + 0.5)
            axis.text(*centre, label, ha="center", va="center", size=13)
    outlines = [(BLUE, "-", 0.05), (ORANGE, "--", 0.11), (GREEN, ":", 0.11)]
    for (name, window), outline in zip(windows.items(), outlines, strict=False):
        row, column, height, width = window
        colour, style, inset = outline
        corner = (column + inset, row + inset)
        sides = (width - 2 * inset, height - 2 * inset)
        line = {"edgecolor": colour, "linestyle": style, "linewidth": 2.5}
        axis.add_patch(Rectangle(corner, *sides, fill=False, label=name, **line))
    axis.set(xlim=(-0.05, len(cells[0]) + 0.05), title=title)
    axis.axis("off")
    if windows:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=11)


def windows_of_a_convolution(
    padded: Sequence[Sequence[int]],
    kernel: Sequence[Sequence[int]],
    output: Sequence[Sequence[int]],
    stride: int,
    padding: int,
) -> Figure:
    """A padded image, a kernel and their output as matrices of whole numbers.

    Up to three of the windows, the first two and the last, are outlined in the padded
    image, and the output that each of them gives is outlined in the same way.
    """
    size = (len(kernel), len(kernel[0]))
    in_image, in_output = {}, {}
    for row, column in _three_windows(output):
        name = f"$y_{{{row},{column}}}$"
        in_image[name] = (row * stride, column * stride, *size)
        in_output[name] = (row, column, 1, 1)
    return _matrices(
        (9, 4),
        ("padded image", _labels(padded, padding), in_image),
        ("kernel", _labels(kernel), {}),
        ("output", _labels(output), in_output),
    )


def windows_as_columns(
    kernel_row: Sequence[int], columns: Sequence[Sequence[int]], output: Sequence[int]
) -> Figure:
    """A convolution as a matrix product: kernel [K], window columns [K, N], output [N].

    Outlines as in `windows_of_a_convolution`: the first two windows and the last.
    """
    in_columns, in_output = {}, {}
    for _, number in _three_windows([output]):
        name = f"window {number}"
        in_columns[name] = (0, number, len(columns), 1)
        in_output[name] = (0, number, 1, 1)
    return _matrices(
        (10, 4.2),
        ("kernel, as one row", _labels([kernel_row]), {}),
        ("× windows, one a column", _labels(columns), in_columns),
        ("= output", _labels([output]), in_output),
    )


def _three_windows(output: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Row and column of the first two windows and of the last, as far as there are."""
    places = [(i, j) for i, row in enumerate(output) for j in range(len(row))]
    return places[:2] + places[2:][-1:]


def _labels(matrix: Sequence[Sequence[int]], padding: int = 0) -> list[list[str]]:
    """The numbers as text. `_windows_on` shades "0", which only padding shall be."""
    labels = np.array(matrix).astype(str)
    height, width = labels.shape
    inside = labels[padding : height - padding, padding : width - padding]
    inside[inside == "0"] = "0 "
    return labels.tolist()


def filtered_image(image: np.ndarray, responses: dict[str, np.ndarray]) -> Figure:
    """A colour image and what each filter makes of it.

    image: [H, W, 3], uint8 or from 0 to 1. responses: [H, W] each, by the filter's
    name; one with negative values has grey for 0, any other goes from black to white.
    """
    count = 1 + len(responses)
    figure, axes = plt.subplots(1, count, figsize=(1.85 * count, 2.3))
    axes[0].imshow(image)
    axes[0].set_title("image")
    for axis, (name, response) in zip(axes[1:], responses.items(), strict=True):
        largest = np.abs(response).max()
        lowest = -largest if response.min() < 0 else 0
        axis.imshow(response, cmap="gray", vmin=lowest, vmax=largest)
        axis.set_title(name)
    hide_axes(axes)
    return figure
