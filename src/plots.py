"""The style of all figures: legible at notebook width, in grey, to the colour-blind."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from src.common.files import write_atomically
from src.common.project import FIGURES, is_copy

#: Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), in an order whose
#: neighbours also differ in lightness.
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"
PURPLE, SKY, GREY = "#CC79A7", "#56B4E9", "#595959"


def use_style() -> None:
    """Make the shared style matplotlib's default; called once in each set-up cell."""
    plt.rcParams.update(
        {
            "figure.figsize": (9, 3.6),
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "image.interpolation": "nearest",
            "legend.frameon": False,
            "lines.linewidth": 2,
            "axes.prop_cycle": plt.cycler(
                color=[BLUE, ORANGE, GREEN, PURPLE, SKY, GREY],
                linestyle=["-", "--", "-.", ":", "-", "--"],
            ),
        }
    )


def save(figure: Figure, name: str) -> None:
    """Keep a figure as PNG for README and answers, whole or not at all.

    A copy of a notebook keeps none (`record_results` says so).
    """
    if not is_copy():
        path = FIGURES / f"{name}.png"
        write_atomically(path, lambda file: figure.savefig(file, format="png"))


def hide_axes(axes: np.ndarray) -> None:
    """Frames and ticks off, titles and labels on."""
    for axis in np.ravel(axes):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
