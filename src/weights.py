"""Pre-trained ResNet-18 weights: ImageNet's official ones, or the best that can be had.

Three sources, one small object:

official    torchvision's `ResNet18_Weights.IMAGENET1K_V1` (the old `pretrained=True`)
compressed  the same network in 1.7 MB (Stock et al., 2020), see `decompress`
standin     trained by us at 64 px; comes with the project (`data/weights/README.md`)
"""

import os
from collections.abc import Callable
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
STANDIN_NAME = "resnet18_distilled_64px"


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
    """No source that may be used gives weights; the text says what to do."""


@dataclass(frozen=True, eq=False)
class PretrainedWeights:
    """The parameters of a trained ResNet-18, and what one must know to use them.

    state_dict: float32, with the keys of torchvision's resnet18, head `fc` included,
        whose 1,000 outputs are ImageNet's classes in torchvision's order.
    """

    name: str
    provenance: str  # in one line
    remark: str  # what is to be known of them, in a sentence for the reader
    top1: float | None  # published accuracy on ImageNet's validation images, in [0, 1]
    input_size: int  # height and width in pixels of the images they were trained on
    state_dict: dict[str, Tensor] = field(repr=False)
    #: Of each colour channel in [0, 1]; the inputs are normalised with them.
    mean: tuple[float, ...] = tuple(OFFICIAL.transforms().mean)
    std: tuple[float, ...] = tuple(OFFICIAL.transforms().std)

    def build(self) -> ResNet:
        """A torchvision resnet18 with these weights, in eval mode."""
        model = resnet18()
        model.load_state_dict(self.state_dict)
        return model.eval()


def _official(saved: dict) -> PretrainedWeights:
    return PretrainedWeights(
        name="resnet18_imagenet1k_v1",
        provenance="torchvision's official ResNet18_Weights.IMAGENET1K_V1",
        remark="The weights in use are ImageNet's official ones; they put 69.76 % of "
        "ImageNet's validation images into the right class.",
        top1=0.6976,
        input_size=224,
        state_dict=saved,
    )


def _compressed(saved: dict) -> PretrainedWeights:
    return PretrainedWeights(
        name="resnet18_imagenet_compressed",
        provenance="ImageNet's ResNet-18, compressed to 1.7 MB (Stock et al., 2020)",
        remark="The weights in use are ImageNet's official ones after a compression to "
        "1.7 MB ([Stock et al., 2020](https://arxiv.org/abs/1907.05686)); they put "
        "65.81 % of ImageNet's validation images into the right class, the originals "
        "69.76 %, so with those the new head may do somewhat better than here.",
        top1=0.6581,
        input_size=224,
        state_dict=decompress(saved),
    )


def _standin(saved: dict) -> PretrainedWeights:
    state = {  # stored in half precision; BatchNorm's integer counters stay integers
        name: value.float() if value.is_floating_point() else value
        for name, value in saved["state_dict"].items()
    }
    return PretrainedWeights(
        name=STANDIN_NAME,
        provenance="a stand-in for ImageNet's weights (data/weights/README.md)",
        remark="The weights in use are a stand-in, since ImageNet's were out of reach: "
        "a ResNet-18 trained by us at 64 × 64 pixels (data/weights/README.md), whose "
        "results must not be taken for those of ImageNet's weights.",
        top1=None,  # measured on other images than the others'
        input_size=64,
        state_dict=state,
    )


def decompress(compressed: dict[str, dict]) -> dict[str, Tensor]:
    """The state dict of a resnet18 whose layers were product-quantised.

    A layer's weight is a matrix, a row for each output. Each row is cut into pieces of
    d numbers (9, a 3x3 filter of one input channel; 4 in other layers), and of a piece
    only the index of the most similar of K "centroids" [K, d], the layer's codebook, is
    kept. assignments: [pieces a row * outputs], first the first piece of all rows.
    BatchNorm's running statistics are folded into its weight and bias: mean 0, and a
    variance that makes 1 with epsilon, 1e-5. Raises KeyError or RuntimeError where the
    parts don't fit. Source: Stock et al., "And the bit goes down" (ICLR 2020),
    https://arxiv.org/abs/1907.05686, github.com/facebookresearch/kill-the-bits.
    """
    state = resnet18().state_dict()
    for name, layer in compressed.items():
        if name == "fc_bias":
            state["fc.bias"] = layer["bias"].detach()
        elif "centroids" in layer:
            pieces = layer["centroids"].float()[layer["assignments"].long()]
            outputs, size = len(state[f"{name}.weight"]), pieces.shape[1]
            rows = pieces.view(-1, outputs, size).transpose(0, 1)
            state[f"{name}.weight"] = rows.reshape(state[f"{name}.weight"].shape)
        else:
            for kind, value in layer.items():
                state[f"{name}.{kind}"] = value.float()
        if f"{name}.running_var" in state:
            state[f"{name}.running_mean"].zero_()
            state[f"{name}.running_var"].fill_(1 - 1e-5)
    return state


@dataclass(frozen=True)
class Source:
    """A file of weights: in `data/weights/`, or else in torch.hub's cache."""

    file: str
    sha256: str  # its beginning
    url: str | None  # None if it comes with the project
    read: Callable[[dict], PretrainedWeights]  # of what torch.load gives

    def find(self, allow_download: bool) -> Path:
        """The path of the file, checked; SourceFailed or OSError without one.

        One that is damaged is named, and left where it is.
        """
        own = WEIGHTS / self.file
        cached = Path(torch.hub.get_dir()) / "checkpoints" / self.file
        for path in (own, cached):
            if path.is_file() and file_hash(path).startswith(self.sha256):
                return path
            if path.is_file():
                where = "data/weights/" if path == own else "torch.hub's cache"
                print(f"Weights: {self.file} in {where} is damaged and not used")
        if not (self.url and allow_download):
            raise SourceFailed("not on this machine")
        download(self.url, cached, self.sha256)
        return cached


#: By the names that MAMAN13_WEIGHTS takes; best first.
SOURCES = {
    "official": Source(
        OFFICIAL.url.rpartition("/")[2], "f37072fd", OFFICIAL.url, _official
    ),
    "compressed": Source(
        "resnet18_small_blocks.pth",
        "54e98666166baa8f5e6fd783b75fef3780e8c9069351ae146781b23f6a0f4729",
        "https://raw.githubusercontent.com/facebookresearch/kill-the-bits/"
        "9ea70f1aef44f4ffb14d89fb304dcbcb93a31ec7/src/models/compressed/"
        "resnet18_small_blocks.pth",
        _compressed,
    ),
    "standin": Source(
        f"{STANDIN_NAME}.pt",
        "e67abe420b94579fdae6d1b40cbb2e81a0b5b329ece2430c75caeb949a4acece",
        None,
        _standin,
    ),
}


def load_pretrained(
    only: str = "", *, allow_download: bool = not FAST
) -> PretrainedWeights:
    """The best weights that can be had; prints which, and why no better ones.

    only: a key of `SOURCES`, the only one to be used; else MAMAN13_WEIGHTS of the
        environment may name it. Raises ValueError for a name that is none of them, and
        WeightsUnavailable when nothing is found.
    """
    wish = only or os.environ.get("MAMAN13_WEIGHTS", "")
    if wish and wish not in SOURCES:
        raise ValueError(
            f"MAMAN13_WEIGHTS is {wish!r}; it may be {', '.join(SOURCES)}, or unset"
        )
    failed = []
    for name in [wish] if wish else SOURCES:
        try:
            path = SOURCES[name].find(allow_download)
            saved = torch.load(path, map_location="cpu", weights_only=True)
            weights = SOURCES[name].read(saved)
        except Exception as error:  # whatever is wrong, there may be another source
            failed.append(f"{name}: {reason(error)}")
        else:
            print(f"Weights: {weights.provenance}", *failed, sep="\n  not the ")
            return weights
    raise WeightsUnavailable(
        f"no pre-trained weights: {'; '.join(failed)}. data/weights/README.md tells "
        "where to get them; `git checkout -- data/weights` restores the stand-in"
    )
