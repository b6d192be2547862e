"""Checkpoints of a training: written whole or not at all, read without running code."""

from pathlib import Path

import torch

from src.files import write_atomically


def write_checkpoint(path: Path, state: dict) -> None:
    """Keep `state`: tensors, numbers, strings, and lists and dicts of them."""
    write_atomically(path, lambda stream: torch.save(state, stream))


def read_checkpoint(path: Path) -> dict:
    """What was kept, on the CPU; empty if there is nothing, or nothing usable."""
    if not path.is_file():
        return {}
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch.load raises many kinds on a damaged file
        print(f"{path.name} can't be read ({error}); training starts anew")
        return {}
    return state if isinstance(state, dict) else {}
