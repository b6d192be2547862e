"""A network that is trained once and kept, with the record of how that went."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from src.common.kept import Key, State, kept, make_key, place
from src.common.machine import provenance
from src.common.project import CACHE


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and the record of how that went."""

    model: nn.Module
    history: list  # a row for each round of the training
    seconds: float
    provenance: dict[str, str]  # versions, device and date of the training
    loaded: bool  # it was kept, rather than trained just now

    @property
    def made_with(self) -> str:
        """When, on what and for how long it was trained, in one line."""
        how = "{date}, torch {torch}, {device}".format(**self.provenance)
        return f"trained in {self.seconds / 60:.0f} minutes ({how})"


def keep_trained(
    name: str,
    key: Key,
    model: nn.Module,
    fit: Callable[[Path], tuple[list, float]],
    *,
    half: bool = False,
    folder: Path = CACHE,
    committed: Path | None = None,
    anew: bool = False,
) -> Trained:
    """Load what `fit` made of `model` under this key (see kept.py); else call it now.

    fit: trains the model in place, keeping what is unfinished in the file that it is
        given; returns the history and the seconds it took.
    half: keep the weights in half precision; what is returned is rounded, too.
    """
    key = key | make_key(half_precision=half)
    partial = place(f"{name}.partial", key, folder)
    loaded = True

    def compute() -> State:
        nonlocal loaded
        loaded = False
        history, seconds = fit(partial)
        made = provenance(next(model.parameters()).device)
        weights = model.state_dict()
        for name, value in weights.items() if half else ():
            weights[name] = value.half() if value.is_floating_point() else value
        record = {"history": history, "seconds": seconds, "provenance": made}
        return record | {"model": weights}

    state = kept(name, key, compute, folder=folder, committed=committed, anew=anew)
    partial.unlink(missing_ok=True)
    model.load_state_dict(state.pop("model"))
    return Trained(model.eval(), **state, loaded=loaded)
