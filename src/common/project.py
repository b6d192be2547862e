"""Where things are, and how this run was asked to behave.

Standard library only, so that the commands can import it on a bare Python.
"""

import os
from pathlib import Path

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

#: Train the three-block network anew instead of loading its finished checkpoint.
RETRAIN = os.environ.get("MAMAN13_RETRAIN") == "1"

#: Every experiment is seeded with this, so that each can be repeated alone.
SEED = 13
