"""Networks that no longer change: the proof that they don't, and the gain from it.

While only the head of the pre-trained network learns, the 512 features that the rest
of it computes for an image are the same in every epoch. So they are computed once and
kept: an epoch then costs a product with a 512x10 matrix instead of a pass through the
whole network. The same goes for the logits of a network that is only evaluated.
"""

import hashlib
import time
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from src.files import write_atomically
from src.progress import LiveLog
from src.project import CACHE
from src.training import Transform, to_device


def fingerprint(model: nn.Module, exclude: str = "fc.") -> dict[str, str]:
    """SHA-256 of each parameter and buffer whose name doesn't start with `exclude`.

    BatchNorm's running statistics are buffers: in training mode they change although
    no gradient flows, which is why they are looked at here too.
    """
    return {
        name: hashlib.sha256(value.detach().cpu().contiguous().numpy()).hexdigest()
        for name, value in model.state_dict().items()
        if not name.startswith(exclude)
    }


def without_head(model: nn.Module) -> nn.Sequential:
    """All of a torchvision ResNet but its head `fc`: [B, 3, S, S] to features [B, 512].

    The layers are the model's own, not copies.
    """
    layers = OrderedDict(model.named_children())
    del layers["fc"]
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)


@dataclass(frozen=True)
class Outputs:
    """What a frozen network makes of some images.

    values: float32 [N, D], on the CPU. seconds: that computing them took when they
    were computed, which may have been in an earlier run.
    """

    values: Tensor
    seconds: float


@torch.no_grad()
def outputs(
    network: nn.Module,
    images: Tensor,
    transform: Transform,
    *,
    name: str,
    folder: Path = CACHE,
    chunk_size: int = 2500,
    batch_size: int = 125,
    log: LiveLog | None = None,
) -> Outputs:
    """The network's output for each image, computed once and kept.

    network: put into evaluation mode; evaluated in single precision.
    images: uint8 [N, 3, 32, 32]; transform: makes a batch of them the network's input.
    name: of the log line and the cache; the rest of the cache's name is a fingerprint
        of the network, its weights, the transform and the images.
    folder: where each finished chunk of images is kept, so that an interruption loses
        at most the current one. A damaged chunk is computed again.
    """
    network.eval()
    images = images.contiguous()
    digest = hashlib.sha256(repr((network, transform, chunk_size)).encode())
    for value in fingerprint(network, exclude="\0").values():
        digest.update(value.encode())
    digest.update(images.numpy())
    cache = folder / f"{name.replace(' ', '-')}-{digest.hexdigest()[:16]}"
    device = next(network.parameters()).device

    pieces = images.split(chunk_size)
    paths = [cache / f"{number:03d}.npz" for number in range(len(pieces))]
    chunks = [_read(path) for path in paths]
    missing = [number for number, chunk in enumerate(chunks) if chunk is None]
    for number in (log or LiveLog()).track(missing, name) if missing else []:
        started = time.perf_counter()
        parts = [
            network(to_device(transform(batch), device)).float().cpu()
            for batch in pieces[number].split(batch_size)
        ]
        values = torch.cat(parts).numpy()
        chunks[number] = values, time.perf_counter() - started
        _write(paths[number], *chunks[number])
    return Outputs(
        torch.from_numpy(np.concatenate([values for values, _ in chunks])),
        sum(seconds for _, seconds in chunks),
    )


def _write(path: Path, values: np.ndarray, seconds: float) -> None:
    write_atomically(path, lambda file: np.savez(file, values=values, seconds=seconds))


def _read(path: Path) -> tuple[np.ndarray, float] | None:
    """A finished chunk, or None if it is absent or damaged."""
    try:
        with np.load(path, allow_pickle=False) as chunk:
            return chunk["values"], float(chunk["seconds"])
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
