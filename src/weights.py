"""Pre-trained ResNet-18 weights: the official ones, or a stand-in where there are none.

Both come as one small object, so that the code of a notebook is the same for both. The
official ones are torchvision's `ResNet18_Weights.IMAGENET1K_V1` (the same as the old
`pretrained=True`). The stand-in in `data/weights/` is described in its README.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import ResNet, ResNet18_Weights, resnet18
from torchvision.transforms import v2

from src.common.downloads import SourceFailed, download, reason
from src.common.files import file_hash
from src.common.project import FAST, WEIGHTS

OFFICIAL = ResNet18_Weights.IMAGENET1K_V1
#: Its file's name ends in the first digits of its SHA-256.
OFFICIAL_URL = OFFICIAL.url

STANDIN = WEIGHTS / "resnet18_tiny_imagenet_64px.pt"
STANDIN_SHA256 = "a997fff8cdf20aed1d2490be20b6eb1c04bcde62a1dbab72a4a9204a4a2db84b"


def input_transform(size: int, mean: tuple, std: tuple) -> v2.Compose:
    """A PIL image, or uint8 images [B, 3, 32, 32], as the network's input.

    size: height and width in pixels afterwards; mean, std: of the colour channels of
    the images that the network learned from, in [0, 1].
    """
    return v2.Compose(
        [
            v2.ToImage(),  # to uint8 [3, 32, 32]
            v2.ToDtype(torch.float32, scale=True),  # to [0, 1]
            v2.Resize([size, size], antialias=True),  # bilinear
            v2.Normalize(mean, std),
        ]
    )


class WeightsUnavailable(RuntimeError):
    """Not even the stand-in can be used; the text says what to do."""


@dataclass(frozen=True, eq=False)
class PretrainedWeights:
    """The parameters of a trained ResNet-18, and what one must know to use them.

    mean, std: of each colour channel in [0, 1]; the inputs are normalised with them.
    state_dict: float32, with the keys of torchvision's resnet18, head `fc` included.
    """

    name: str
    provenance: str  # in one line
    official: bool  # torchvision's ImageNet weights rather than the stand-in
    input_size: int  # height and width in pixels of the images they were trained on
    mean: tuple[float, ...]
    std: tuple[float, ...]
    categories: tuple[str, ...] = field(repr=False)  # what the head's outputs mean
    state_dict: dict[str, Tensor] = field(repr=False)
    sha256: str  # of the file that they were read from

    def build(self) -> ResNet:
        """A torchvision resnet18 with these weights, in eval mode."""
        model = resnet18(num_classes=len(self.categories))
        model.load_state_dict(self.state_dict)
        return model.eval()


def load_pretrained(*, allow_download: bool = not FAST) -> PretrainedWeights:
    """The official weights where they can be had, otherwise the stand-in.

    Looks in `data/weights/`, then in torch.hub's cache, then downloads them into that
    cache, and prints what is used and why. MAMAN13_WEIGHTS=standin in the
    environment asks for the stand-in. Raises ValueError for another value of it, and
    WeightsUnavailable when the stand-in is damaged.
    """
    wish = os.environ.get("MAMAN13_WEIGHTS", "")
    if wish not in ("", "standin"):
        raise ValueError(
            f"MAMAN13_WEIGHTS is {wish!r}; set it to 'standin' or unset it"
        )
    if wish == "standin":
        why = "asked for by MAMAN13_WEIGHTS"
    else:
        try:
            weights = _read_official(_official_file(allow_download))
            print(f"Weights: {weights.provenance}")
            return weights
        except Exception as error:  # whatever is wrong, the stand-in works
            why = reason(error)
    weights = _read_standin()
    print(
        f"Weights: {weights.provenance}.\n"
        f"They are a stand-in for the official ImageNet weights\n({why}).\n"
        f"To use those, put {_file_name()} into data/weights/\n(from {OFFICIAL_URL})."
    )
    return weights


def _file_name() -> str:
    return OFFICIAL_URL.rpartition("/")[2]


def _hash_prefix() -> str:
    return re.search(r"-([0-9a-f]{8,})\.", _file_name())[1]


def _official_file(allow_download: bool) -> Path:
    """The path of the checked official file; SourceFailed or OSError without one."""
    own = WEIGHTS / _file_name()
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _file_name()
    for path in (own, cached):
        if not path.is_file():
            continue
        if file_hash(path).startswith(_hash_prefix()):
            return path
        where = "data/weights/" if path == own else "torch.hub's cache"
        print(f"Weights: {path.name} in {where} is incomplete or corrupt and not used")
    if not allow_download:
        raise SourceFailed("none on this machine, and nothing is downloaded now")
    download(OFFICIAL_URL, cached, _hash_prefix())
    return cached


def _read_official(path: Path) -> PretrainedWeights:
    preset = OFFICIAL.transforms()
    return PretrainedWeights(
        name="resnet18_imagenet1k_v1",
        provenance="torchvision's official ResNet18_Weights.IMAGENET1K_V1",
        official=True,
        input_size=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        categories=tuple(OFFICIAL.meta["categories"]),
        state_dict=torch.load(path, map_location="cpu", weights_only=True),
        sha256=file_hash(path),
    )


def _read_standin() -> PretrainedWeights:
    digest = file_hash(STANDIN) if STANDIN.is_file() else "no such file"
    if digest != STANDIN_SHA256:
        raise WeightsUnavailable(
            f"data/weights/{STANDIN.name} is missing or damaged (SHA-256: {digest}); "
            "restore it with `git checkout -- data/weights`"
        )
    saved = torch.load(STANDIN, map_location="cpu", weights_only=True)
    meta = saved["meta"]
    state = {  # stored in half precision; BatchNorm's integer counters stay integers
        name: value.float() if value.is_floating_point() else value
        for name, value in saved["state_dict"].items()
    }
    return PretrainedWeights(
        name=meta["name"],
        provenance="a ResNet-18 trained on 200 ImageNet classes at 64 px "
        "(data/weights/README.md)",
        official=False,
        input_size=meta["input_size"],
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        categories=tuple(meta["categories"]),
        state_dict=state,
        sha256=digest,
    )
