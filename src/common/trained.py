"""A network that is trained once and kept, with the record of how that went."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from src.common.kept import Key, State, kept, place
from src.common.machine import provenance
from src.common.progress import LiveLog
from src.common.project import CACHE


@dataclass(frozen=True)
class Trained:
    """A trained network in evaluation mode, and the record of how that went."""

    model: nn.Module
    history: list  # a row for each round of the training
    seconds: float
    provenance: dict[str, str]  # versions, device and date of the training
    loaded: bool  # it was kept, rather than trained just now


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
    log: LiveLog | None = None,
) -> Trained:
    """Load what `fit` made of `model` under this key (see kept.py); else call it now.

    fit: trains the model in place and returns the history and the seconds it took; it
        is given the file in which to keep unfinished training.
    half: keep the weights in half precision. What is returned after training was
        rounded the same way, so that both ways give the same network.
    folder, committed, anew: of `kept`.
    """
    partial = place(f"{name}.partial", key, folder)
    loaded = True

    def compute() -> State:
        nonlocal loaded
        loaded = False
        history, seconds = fit(partial)
        weights = {
            name: value.half() if half and value.is_floating_point() else value
            for name, value in model.state_dict().items()
        }
        made = provenance(next(model.parameters()).device)
        record = {"history": history, "seconds": seconds, "provenance": made}
        return {"model": weights, **record}

    where = {"folder": folder, "committed": committed, "anew": anew}
    state = kept(name, key, compute, **where, say=(log or LiveLog()).line)
    partial.unlink(missing_ok=True)
    model.load_state_dict(state.pop("model"))
    return Trained(model.eval(), **state, loaded=loaded)
