"""Where things are, and how this run was asked to behave.

Standard library only, so that the commands can import it on a bare Python.
"""

import importlib.util
import os
import sys
from pathlib import Path

from src.common.memory import keep_freed_memory

ROOT = Path(__file__).resolve().parents[2]
ANSWERS = ROOT / "answers"
DATA = ROOT / "data"
WEIGHTS = DATA / "weights"
CACHE = DATA / "cache"

#: Fast mode: the embedded sample instead of the whole of CIFAR-10, no network.
FAST = os.environ.get("MAMAN13_FAST") == "1"

# What the fast mode trains and measures must never replace the real thing.
_MADE = CACHE / "fast" if FAST else DATA
CHECKPOINTS = _MADE / "checkpoints"
RESULTS = _MADE / "results.json"
#: Figures that README and answers show.
FIGURES = (_MADE if FAST else ANSWERS) / "figures"

#: The notebooks by their short names, in the order in which they run.
NOTEBOOKS = {
    "q1": "q1_convolution.ipynb",
    "q2": "q2_backpropagation.ipynb",
    "q3": "q3_transfer_learning.ipynb",
}

#: Train the three-block network anew instead of loading its finished checkpoint.
RETRAIN = os.environ.get("MAMAN13_RETRAIN") == "1"

#: Every experiment is seeded with this, so that each can be repeated alone.
SEED = 13


def is_copy() -> bool:
    """Whether a notebook of another name than ours runs: a trial, to record nothing.

    VS Code tells the name, then Jupyter; where neither does, it is taken for ours.
    """
    path = getattr(sys.modules["__main__"], "__vsc_ipynb_file__", None)
    name = Path(path or os.environ.get("JPY_SESSION_NAME", "")).name
    return name.endswith(".ipynb") and name not in NOTEBOOKS.values()


def require_packages() -> None:
    """Raise ModuleNotFoundError, saying what to start, where packages are missing.

    Where they are not, also see to fast memory (memory.py) for what computes here.
    """
    names = ["torch", "torchvision", "matplotlib"]
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if not missing:
        keep_freed_memory()
        return
    windows = os.name == "nt"
    start = r".venv\Scripts\jupyter lab" if windows else ".venv/bin/jupyter lab"
    make = f"`{'py' if windows else 'python3'} -m src run`"
    made = "" if (ROOT / ".venv").is_dir() else f", which {make} makes"
    raise ModuleNotFoundError(
        f"{', '.join(missing)}: not installed for the Python that runs this, "
        f"{sys.executable}; the packages are in the project's folder .venv{made}: "
        f"start `{start}` in the project's folder, or choose the interpreter in .venv "
        "as the kernel in VS Code."
    )
