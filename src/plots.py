"""Every figure of the notebooks, in one style.

Legible at notebook width, in grey, and to colour-blind readers.

Each function draws one figure from plain data and returns it; none computes a result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.files import write_atomically
from src.project import FIGURES

if TYPE_CHECKING:  # so that question 1 does not depend on the code of question 3
    from src.analysis import Calibration, Mistake
    from src.data_efficiency import Point
    from src.training import Epoch

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


def save(figure: Figure, name: str) -> None:
    """Keep a figure as PNG for README and answers, whole or not at all."""
    write_atomically(
        FIGURES / f"{name}.png", lambda file: figure.savefig(file, format="png")
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
    axis.set(
        xlim=(-0.05, len(cells[0]) + 0.05), ylim=(len(cells) + 0.05, -0.05), title=title
    )
    axis.axis("off")
    if windows:
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0), fontsize=11)


# --- question 3 ---


def class_samples(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Some images of each class, one class a column.

    images: uint8 [N, H, W, 3], as imshow takes them; labels: int [N].
    """
    per_class = np.bincount(labels).min()
    figure, axes = plt.subplots(
        per_class, len(classes), figsize=(len(classes), per_class + 0.3), squeeze=False
    )
    for column, name in enumerate(classes):
        axes[0, column].set_title(name, fontsize=9)
        for row, image in enumerate(images[labels == column][:per_class]):
            axes[row, column].imshow(image)
    _hide_axes(axes)
    return figure


def enlargement(pictures: dict[str, np.ndarray]) -> Figure:
    """The same image at several stages, side by side; each [H, W, 3] in [0, 1]."""
    figure, axes = plt.subplots(1, len(pictures), figsize=(9, 2.6))
    for axis, (title, picture) in zip(axes, pictures.items(), strict=True):
        axis.imshow(picture.clip(0, 1))
        axis.set_title(title, fontsize=9)
    _hide_axes(axes)
    return figure


def learning_curves(curves: dict[str, Sequence[Epoch]]) -> Figure:
    """Loss and accuracy, on training and validation images, of each named network."""
    figure, axes = plt.subplots(1, 2 * len(curves), figsize=(11, 3.2))
    for (name, curve), (left, right) in zip(
        curves.items(), axes.reshape(-1, 2), strict=True
    ):
        epochs = [epoch.number for epoch in curve]
        for part, style in (("train", "-"), ("validation", "--")):
            colour = BLUE if part == "train" else ORANGE
            losses = [getattr(epoch, f"{part}_loss") for epoch in curve]
            accuracies = [100 * getattr(epoch, f"{part}_accuracy") for epoch in curve]
            left.plot(epochs, losses, style, color=colour, label=part)
            right.plot(epochs, accuracies, style, color=colour, label=part)
        left.set(title=f"{name}: loss", xlabel="epoch", ylabel="cross-entropy (nats)")
        right.set(title=f"{name}: accuracy", xlabel="epoch", ylabel="accuracy (%)")
        left.legend()
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def mistakes(
    images: np.ndarray, mistakes: Sequence[Mistake], classes: Sequence[str]
) -> Figure:
    """Ten wrongly classified images, with both classes and their probabilities.

    images: uint8 [10, H, W, 3], in the order of the mistakes.
    """
    figure, axes = plt.subplots(2, 5, figsize=(10, 5.2))
    for axis, image, mistake in zip(axes.flat, images, mistakes, strict=False):
        axis.imshow(image, interpolation="bicubic")
        axis.set_title(
            f"predicted: {classes[mistake.predicted]} {mistake.probability:.2%}\n"
            f"true: {classes[mistake.true]} {mistake.true_probability:.2%}",
            fontsize=9,
        )
        axis.set_xlabel(f"test image {mistake.index}", fontsize=8)
    _hide_axes(axes)
    return figure


def confusion(matrices: dict[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Confusion matrices: rows true, columns predicted, in % of the row."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(11, 5.2), squeeze=False)
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=True):
        share = 100 * matrix / matrix.sum(1, keepdims=True)
        # the square root lets the few per cent off the diagonal be seen
        axis.imshow(np.sqrt(share), cmap="Greys", vmin=0, vmax=10)
        for row, column in np.ndindex(share.shape):
            colour = "white" if share[row, column] > 35 else "black"
            axis.text(
                column,
                row,
                f"{share[row, column]:.0f}",
                ha="center",
                va="center",
                color=colour,
                fontsize=8,
            )
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set(
            title=f"{name} (% of each true class)", xlabel="predicted", ylabel="true"
        )
        axis.grid(False)
    return figure


def class_accuracies(
    accuracies: dict[str, Sequence[float]], classes: Sequence[str]
) -> Figure:
    """Accuracy on each class, one group of bars a class."""
    figure, axis = plt.subplots(figsize=(9, 3))
    width = 0.8 / len(accuracies)
    for number, (name, values) in enumerate(accuracies.items()):
        positions = (
            np.arange(len(classes)) + (number - (len(accuracies) - 1) / 2) * width
        )
        axis.bar(
            positions,
            100 * np.array(values),
            width,
            label=name,
            color=(SKY, BLUE)[number % 2],
            hatch=("//", "")[number % 2],
            edgecolor="white",
        )
    axis.set_xticks(range(len(classes)), classes)
    axis.set(ylabel="accuracy (%)", ylim=(0, 100))
    axis.grid(False, axis="x")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    return figure


def reliability(calibrations: dict[str, Calibration]) -> Figure:
    """Accuracy against confidence; a calibrated network lies on the diagonal."""
    figure, axes = plt.subplots(1, len(calibrations), figsize=(9, 3.8), squeeze=False)
    for axis, (name, calibration) in zip(axes.flat, calibrations.items(), strict=True):
        axis.plot([0, 100], [0, 100], ":", color=GREY, label="perfect calibration")
        confidence = 100 * np.array(calibration.confidence)
        axis.plot(
            confidence,
            100 * np.array(calibration.accuracy),
            "o-",
            color=BLUE,
            label=name,
        )
        axis.set(
            title=f"{name}: ECE {calibration.ece:.1%}",
            xlabel="confidence (%)",
            ylabel="accuracy (%)",
            aspect="equal",
        )
        axis.legend(loc="lower right")
    return figure


def data_efficiency(curves: dict[str, Sequence[Point]]) -> Figure:
    """Test accuracy against training images a class; every seed is a small dot."""
    figure, axis = plt.subplots(figsize=(8, 3.8))
    for (name, points), (colour, style, marker) in zip(
        curves.items(), ((ORANGE, "--", "s"), (BLUE, "-", "o")), strict=True
    ):
        sizes = [point.images_per_class for point in points]
        means = [100 * point.mean for point in points]
        axis.semilogx(sizes, means, style, color=colour, marker=marker, label=name)
        for point in points:
            for accuracy in point.accuracies:
                axis.plot(
                    point.images_per_class, 100 * accuracy, ".", color=colour, ms=4
                )
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.set(
        xlabel="training images of each class (small dots: single draws)",
        ylabel="test accuracy (%)",
    )
    axis.legend(loc="upper left")
    return figure


def _hide_axes(axes: np.ndarray) -> None:
    """Frames and ticks off, titles and labels on."""
    for axis in np.ravel(axes):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)


# --- question 1 ---


def windows_of_a_convolution(
    padded: Sequence[Sequence[int]],
    kernel: Sequence[Sequence[int]],
    output: Sequence[Sequence[int]],
    stride: int,
) -> Figure:
    """A padded image, a kernel and their output as matrices of whole numbers.

    Three of the windows, the first two and the last, are outlined in the padded image,
    and the output that each of them gives is outlined in the same way.
    """
    size = (len(kernel), len(kernel[0]))
    in_image, in_output = {}, {}
    for row, column in _three_windows(output):
        name = f"$y_{{{row},{column}}}$"
        in_image[name] = (row * stride, column * stride, *size)
        in_output[name] = (row, column, 1, 1)
    widths = [len(matrix[0]) for matrix in (padded, kernel, output)]
    figure, axes = plt.subplots(1, 3, figsize=(9, 4), width_ratios=widths)
    _windows_on(axes[0], "padded image", _labels(padded), in_image)
    _windows_on(axes[1], "kernel", _labels(kernel, zero="0 "), {})
    _windows_on(axes[2], "output", _labels(output, zero="0 "), in_output)
    _same_scale(axes, len(padded))
    return figure


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
    widths = [len(kernel_row), len(output), len(output)]
    figure, axes = plt.subplots(1, 3, figsize=(9.5, 4.2), width_ratios=widths)
    _windows_on(axes[0], "kernel, as one row", _labels([kernel_row], zero="0 "), {})
    _windows_on(axes[1], "× windows, one a column", _labels(columns), in_columns)
    _windows_on(axes[2], "= output", _labels([output], zero="0 "), in_output)
    _same_scale(axes, len(columns))
    return figure


def _three_windows(output: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Row and column of the first two windows and of the last."""
    return [(0, 0), (0, 1), (len(output) - 1, len(output[0]) - 1)]


def _labels(matrix: Sequence[Sequence[int]], zero: str = "0") -> list[list[str]]:
    """The numbers as text. `_windows_on` shades "0", which only padding shall be."""
    return [[str(number) if number else zero for number in row] for row in matrix]


def _same_scale(axes: np.ndarray, rows: int) -> None:
    """Cells of one size in all axes, each matrix in the middle of its axis."""
    for axis in axes:
        middle = sum(axis.get_ylim()) / 2
        axis.set(ylim=(middle + rows / 2 + 0.05, middle - rows / 2 - 0.05), aspect=1)


def filtered_image(image: np.ndarray, responses: dict[str, np.ndarray]) -> Figure:
    """A colour image and what each filter makes of it.

    image: uint8 [H, W, 3]. responses: [H, W] each, by the filter's name; one with
    negative values is drawn with grey for 0, any other from black to white.
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
    _hide_axes(axes)
    return figure


def cost_ratios(
    labels: Sequence[str], time_ratios: Sequence[float], memory_ratios: Sequence[float]
) -> Figure:
    """Our cost over the reference's, layer by layer; 1 is the reference."""
    figure, axis = plt.subplots(figsize=(8, 3.8))
    rows = np.arange(len(labels))
    axis.axvline(1, color=GREY, linestyle="-", linewidth=1)
    axis.plot(time_ratios, rows, "o", color=BLUE, label="time")
    axis.plot(memory_ratios, rows, "s", color=ORANGE, mfc="none", label="peak memory")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}×")
    axis.set_yticks(rows, labels)
    axis.invert_yaxis()
    axis.set_xlabel("our layer ÷ nn.Conv2d (left of the line: cheaper)")
    axis.legend(loc="lower right")
    return figure
