"""The frozen part of the pre-trained network, evaluated once an image.

While only the head learns, the 512 features that the rest of the network computes for
an image are the same in every epoch. So they are computed once and kept: an epoch then
costs a product with a 512x10 matrix instead of a pass through the whole network.
"""

import hashlib
from collections import OrderedDict
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

    BatchNorm's running statistics are buffers: they change in training mode even when
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


def features(
    model: nn.Module,
    images: Tensor,
    transform: Transform,
    *,
    key: str,
    folder: Path = CACHE,
    chunk_size: int = 2500,
    batch_size: int = 125,
    log: LiveLog | None = None,
    name: str = "features",
) -> Tensor:
    """The frozen network's features of all images: float32 [N, 512], on the CPU.

    model: a torchvision ResNet; evaluated in evaluation mode and single precision.
    images: uint8 [N, 3, 32, 32]; transform: makes a batch of them the network's input.
    key: identifies the weights; with the transform and the images it names the cache.
    folder: where each finished chunk of images is kept, so that an interruption loses
        at most the current one. A damaged chunk is computed again.
    """
    images = images.contiguous()
    digest = hashlib.sha256(f"{key} {transform!r} float32 {chunk_size}".encode())
    digest.update(images.numpy())
    cache = folder / f"{name}-{digest.hexdigest()[:16]}"
    network = without_head(model).eval()
    device = next(model.parameters()).device

    chunks = []
    pieces = images.split(chunk_size)
    missing = [i for i in range(len(pieces)) if _read(cache / f"{i:03d}.npy") is None]
    track = (log or LiveLog()).track(missing, name) if missing else []
    for i in track:
        with torch.no_grad():
            parts = [
                network(to_device(transform(batch), device)).cpu()
                for batch in pieces[i].split(batch_size)
            ]
        array = torch.cat(parts).numpy()
        write_atomically(cache / f"{i:03d}.npy", lambda file, a=array: np.save(file, a))
    chunks = [_read(cache / f"{i:03d}.npy") for i in range(len(pieces))]
    return torch.from_numpy(np.concatenate(chunks))


def _read(path: Path) -> np.ndarray | None:
    """A chunk of features, or None if it is absent or damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
