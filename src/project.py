"""Where things are, and how this run was asked to behave.

Standard library only, so that the commands can import it on a bare Python.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
ANSWERS = ROOT / "answers"
DATA = ROOT / "data"
SAMPLE = DATA / "sample"
WEIGHTS = DATA / "weights"
CHECKPOINTS = DATA / "checkpoints"
CACHE = DATA / "cache"
RESULTS = DATA / "results.json"

#: Fast mode: the embedded sample instead of the whole of CIFAR-10, no network.
FAST = os.environ.get("MAMAN13_FAST") == "1"
#: Train the three-block network anew instead of loading its finished checkpoint.
RETRAIN = os.environ.get("MAMAN13_RETRAIN") == "1"

#: Every experiment is seeded with this, so that each can be repeated alone.
SEED = 13
