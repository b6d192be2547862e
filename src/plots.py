"""Every figure of the notebooks, in one style.

Legible at notebook width, in grey, and to colour-blind readers.

Each function draws one figure from plain data and returns it; none computes a result.
"""

import matplotlib.pyplot as plt

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
