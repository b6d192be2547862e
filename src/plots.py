"""Every figure of the notebooks, in one style.

Legible at notebook width, in grey, and to colour-blind readers.

Each function draws one figure from plain data and returns it; none computes a result.
"""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

#: Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), in an order whose
#: neighbours also differ in lightness.
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#595959",
)


def use_style() -> None:
    """Make the shared style matplotlib's default; called once in each set-up cell."""
    plt.rcParams.update(
        {
            "figure.figsize": (9, 3.6),
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "savefig.dpi": 90,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "image.interpolation": "nearest",
            "image.cmap": "viridis",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "axes.prop_cycle": plt.cycler(
                color=[BLUE, ORANGE, GREEN, PURPLE, SKY, GREY],
                linestyle=["-", "--", "-.", ":", "-", "--"],
            ),
        }
    )


# --- question 2 ---


def backpropagation_windows() -> Figure:
    """A 3×3 image and a 2×1 kernel: what slides over what, forward and backward.

    Three matrices side by side, some windows outlined on each: the output, the kernel's
    gradient, and the image's gradient, with its border of zeros shaded.
    """
    image = _indexed("$x_{i,j}$", rows=3, columns=3)
    zeros = [["0"] * 3]
    output_grad = _indexed(r"$\dfrac{\partial C}{\partial y_{i,j}}$", rows=2, columns=3)
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 5.7))
    _windows_on(
        axes[0],
        "Output:\n$K$ slides over $X$",
        image,
        {
            "$y_{1,1}=k_{1,1}x_{1,1}+k_{2,1}x_{2,1}$": (0, 0, 2, 1),
            "$y_{2,1}=k_{1,1}x_{2,1}+k_{2,1}x_{3,1}$": (1, 0, 2, 1),
        },
    )
    _windows_on(
        axes[1],
        "Kernel's gradient:\n" r"$\partial C/\partial Y$ slides over $X$",
        image,
        {
            r"$\partial C/\partial k_{1,1}$": (0, 0, 2, 3),
            r"$\partial C/\partial k_{2,1}$": (1, 0, 2, 3),
        },
    )
    _windows_on(
        axes[2],
        "Image's gradient: flipped $K$\n" r"slides over padded $\partial C/\partial Y$",
        zeros + output_grad + zeros,
        {
            r"$\partial C/\partial x_{1,1}$": (0, 0, 2, 1),
            r"$\partial C/\partial x_{2,2}$": (1, 1, 2, 1),
            r"$\partial C/\partial x_{3,3}$": (2, 2, 2, 1),
        },
    )
    for axis in axes:  # one scale for all, each matrix in the middle
        middle = sum(axis.get_ylim()) / 2
        axis.set(ylim=(middle + 2.05, middle - 2.05), aspect=1)
    return figure


def _indexed(symbol: str, rows: int, columns: int) -> list[list[str]]:
    """A matrix of labels, each with its own indices, from 1, in place of i,j."""
    return [
        [symbol.replace("i,j", f"{i},{j}") for j in range(1, columns + 1)]
        for i in range(1, rows + 1)
    ]


def _windows_on(
    axis: Axes,
    title: str,
    cells: list[list[str]],
    windows: dict[str, tuple[int, int, int, int]],
) -> None:
    """Draw a matrix of labels, "0" shaded, and outline windows on it.

    windows: (row, column, height, width), counted from 0, of each, by its name. Those
    that overlap stay apart by their insets, and differ in line style as in colour.
    """
    for row, labels in enumerate(cells):
        for column, label in enumerate(labels):
            shade = "#e6e6e6" if label == "0" else "white"
            axis.add_patch(
                Rectangle((column, row), 1, 1, facecolor=shade, edgecolor="#b0b0b0")
            )
            centre = (column + 0.5, row + 0.5)
            axis.text(*centre, label, ha="center", va="center", size=13)
    outlines = [(BLUE, "-", 0.05), (ORANGE, "--", 0.11), (GREEN, ":", 0.11)]
    for (name, window), outline in zip(windows.items(), outlines, strict=False):
        row, column, height, width = window
        colour, style, inset = outline
        axis.add_patch(
            Rectangle(
                (column + inset, row + inset),
                width - 2 * inset,
                height - 2 * inset,
                fill=False,
                edgecolor=colour,
                linestyle=style,
                linewidth=2.5,
                label=name,
            )
        )
    axis.set(xlim=(-0.05, len(cells[0]) + 0.05), ylim=(len(cells), 0), title=title)
    axis.axis("off")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=11)
