"""The figures of question 3: each drawn from plain data, and returned."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from src.experiments import Point
from src.plots import BLUE, ORANGE
from src.training import Epoch


def learning_curves(curves: dict[str, Sequence[Epoch]]) -> Figure:
    """Accuracy by epoch of each named network, on validation images where there are."""
    size = (4.5 * len(curves), 2.6)
    figure, axes = plt.subplots(1, len(curves), figsize=size, squeeze=False)
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=True):
        epochs = [epoch.number for epoch in curve]
        for part, style, colour in (("train", "-", BLUE), ("validation", "--", ORANGE)):
            shares = np.array([getattr(epoch, f"{part}_accuracy") for epoch in curve])
            if not np.isnan(shares).all():
                axis.plot(epochs, 100 * shares, style, color=colour, label=part)
        axis.set(title=name, xlabel="epoch", ylabel="accuracy (%)")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="lower right")
    return figure


def confusion(matrices: dict[str, np.ndarray], classes: Sequence[str]) -> Figure:
    """Confusion matrices: rows true, columns predicted, in % of the row."""
    figure, axes = plt.subplots(1, len(matrices), figsize=(11, 5.2), squeeze=False)
    for axis, (name, matrix) in zip(axes.flat, matrices.items(), strict=True):
        share = 100 * matrix / matrix.sum(1, keepdims=True)
        # the square root lets the few per cent off the diagonal be seen
        axis.imshow(np.sqrt(share), cmap="Greys", vmin=0, vmax=10)
        middle = {"ha": "center", "va": "center", "fontsize": 8}
        for (row, column), value in np.ndenumerate(share):
            colour = "white" if value > 35 else "black"
            axis.text(column, row, f"{value:.0f}", color=colour, **middle)
        axis.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axis.set_yticks(range(len(classes)), classes)
        axis.set(
            title=f"{name} (% of each true class)", xlabel="predicted", ylabel="true"
        )
        axis.grid(False)
    return figure


def data_efficiency(curves: dict[str, Sequence[Point]]) -> Figure:
    """Test accuracy against training images a class; every seed is a small dot."""
    figure, axis = plt.subplots(figsize=(8, 3.8))
    looks = (ORANGE, "--", "s"), (BLUE, "-", "o")
    for (name, points), look in zip(curves.items(), looks, strict=True):
        colour, style, marker = look
        sizes = [point.images_per_class for point in points]
        means = [100 * point.mean for point in points]
        axis.semilogx(sizes, means, style, color=colour, marker=marker, label=name)
        for size, point in zip(sizes, points, strict=True):
            for accuracy in point.accuracies:
                axis.plot(size, 100 * accuracy, ".", color=colour, ms=4)
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel("training images of each class (small dots: single draws)")
    axis.set_ylabel("test accuracy (%)")
    axis.legend(loc="upper left")
    return figure
