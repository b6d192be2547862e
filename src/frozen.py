"""Networks that no longer change: the proof that they don't, and the gain from it.

While only the head of the pre-trained network learns, the 512 features that the rest
of it computes for an image are the same in every epoch. So they are computed once and
kept: an epoch then costs a product with a 512x10 matrix instead of a pass through the
whole network. The same goes for the logits of a network that is only evaluated.
"""

import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from src.cifar10 import Transform
from src.common.kept import State, kept, make_key, place
from src.common.progress import LiveLog
from src.common.project import CACHE
from src.training import predict


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
class FrozenOutputs:
    """What a frozen network makes of some images.

    values: float32 [N, D], on the CPU. seconds: that computing them took when they
    were computed, which may have been in an earlier run.
    """

    values: Tensor
    seconds: float


def frozen_outputs(
    network: nn.Module,
    images: Tensor,
    transform: Transform,
    *,
    name: str,
    folder: Path = CACHE,
    chunk_size: int = 2500,
    log: LiveLog | None = None,
) -> FrozenOutputs:
    """The network's output for each image, computed once and kept.

    network: put into evaluation mode; evaluated in single precision.
    images: uint8 [N, 3, 32, 32]; transform: makes a batch of them the network's input.
    name: of the log line, and of the files in `folder`, one for each chunk of images:
        an interruption loses at most the current one. A damaged one is computed again.
    """
    common = make_key(network=network, transform=transform, code=[predict])
    file_name = name.replace(" ", "-")
    chunks = [
        (f"{file_name}-{number:03d}", common | make_key(images=chunk), chunk)
        for number, chunk in enumerate(images.split(chunk_size))
    ]
    missing = [
        part for part, key, _ in chunks if not place(part, key, folder).is_file()
    ]
    states = []
    progress = (log or LiveLog()).track(chunks, name) if missing else chunks
    for part, key, chunk in progress:

        def compute(chunk: Tensor = chunk) -> State:
            started = time.perf_counter()
            values = predict(network, chunk, transform, batch_size=125)
            return {"values": values, "seconds": time.perf_counter() - started}

        # what changed is the same for all that are missing, so it is said once
        quiet = [part] != missing[:1]
        states.append(kept(part, key, compute, folder=folder, quiet=quiet))
    values = torch.cat([state["values"] for state in states])
    return FrozenOutputs(values, sum(state["seconds"] for state in states))
