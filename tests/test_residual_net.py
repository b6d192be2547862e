"""The three-block network: its shapes, what its first block does, its start."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.functional import gelu
from torchvision.transforms import v2

from src.residual_net import ResidualBlock, ThreeBlockNet, whiten_first_convolution

WIDTHS = (8, 16, 24)


def test_a_block_halves_height_and_width():
    block = ResidualBlock(3, 5)
    assert block(torch.zeros(2, 3, 12, 20)).shape == (2, 5, 6, 10)


def test_a_block_adds_its_shortcut():
    block = ResidualBlock(3, 5).eval()
    image = torch.randn(2, 3, 8, 8)
    nn.init.zeros_(block.residual[-1].weight)  # then F(x) = 0
    nn.init.zeros_(block.residual[-1].bias)
    assert torch.equal(block(image), gelu(block.shortcut(image)))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_shapes_on_the_way(size):
    network = ThreeBlockNet(WIDTHS).eval()
    image = torch.zeros(2, 3, size, size)
    first = network.block1(image)
    assert first.shape == (2, 8, 16, 16)
    second = network.block2(first)
    assert second.shape == (2, 16, 8, 8)
    third = network.block3(second)
    assert third.shape == (2, 24, 4, 4)
    assert network(image).shape == (2, 10)


def shifted_norms(network: nn.Module) -> nn.Module:
    """Ready for evaluation in float64, with BatchNorms and biases that do something."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    nn.init.normal_(network.block1.whiten[0].bias)
    return network.double().eval()


def plain(network: ThreeBlockNet, x: torch.Tensor, **replaced) -> torch.Tensor:
    """The forward pass in functional calls, parts of it replaced by others."""
    use = {
        "activation": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,  # exact GELU
        "halve": lambda x: F.max_pool2d(x, 2),
        "skip": lambda x: F.avg_pool2d(x, 2),
        "shrink": lambda x: (
            x.unflatten(2, (32, -1)).unflatten(4, (32, -1)).mean((3, 5))
        ),
        "norm": lambda x, n: (
            (x - n.running_mean[:, None, None])
            / (n.running_var + 1e-5).sqrt()[:, None, None]
            * n.weight[:, None, None]
            + n.bias[:, None, None]
        ),
        "last": lambda x: x.mean((2, 3)),
        "whiten": lambda x, c: use["activation"](
            F.conv2d(x, c.weight, c.bias, padding=1)
        ),
        "add": torch.add,
    } | replaced
    x = use["shrink"](x)
    for number, block in enumerate((network.block1, network.block2, network.block3)):
        inner = use["whiten"](x, block.whiten[0]) if number == 0 else x
        first, _, norm1, _, second, norm2 = block.residual
        inner = use["halve"](F.conv2d(inner, first.weight, padding=1))
        inner = use["activation"](use["norm"](inner, norm1))
        inner = use["norm"](F.conv2d(inner, second.weight, padding=1), norm2)
        _, one, norm3 = block.shortcut
        side = use["norm"](F.conv2d(use["skip"](x), one.weight), norm3)
        x = use["activation"](use["add"](inner, side))
    return F.linear(use["last"](x), network.fc.weight, network.fc.bias)


@pytest.mark.parametrize("size", [32, 64])
def test_the_network_is_what_its_docstring_says(size):
    network = shifted_norms(ThreeBlockNet(WIDTHS))
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            network(image), plain(network, image), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    "other",
    [
        {"activation": torch.relu},
        {"halve": lambda x: F.avg_pool2d(x, 2)},
        {"skip": lambda x: F.max_pool2d(x, 2)},
        {"shrink": lambda x: x[:, :, ::2, ::2]},
        {"norm": lambda x, _: x},
        {"last": lambda x: x.amax((2, 3))},
        {"whiten": lambda x, c: F.conv2d(x, c.weight, c.bias, padding=1)},
        {"add": torch.sub},
        {"add": lambda inner, side: inner},
    ],
    ids=lambda other: next(iter(other)),
)
def test_each_part_of_the_network_matters(other):
    network = shifted_norms(ThreeBlockNet(WIDTHS))
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert (network(image) - plain(network, image, **other)).abs().max() > 1e-3


def test_exactly_three_blocks_a_pool_and_a_head():
    kinds = [type(layer) for layer in ThreeBlockNet(WIDTHS).children()]
    assert kinds == [*[ResidualBlock] * 3, nn.AdaptiveAvgPool2d, nn.Linear]
    with pytest.raises(ValueError, match=r"three widths, got \(8, 16\)"):
        ThreeBlockNet((8, 16))


def test_64_and_224_pixels_mean_nearly_the_same_to_it():
    torch.manual_seed(0)
    network = ThreeBlockNet(WIDTHS).eval()
    image = torch.rand(4, 3, 32, 32)
    small, large = (
        network.block1.shrink(v2.Resize([size, size], antialias=True)(image))
        for size in (64, 224)
    )
    # the two blurs differ by 1/4 - 12/49 = 0.005 along each axis
    assert (small - large).abs().max() < 0.012
    assert (network(small) - network(large)).abs().max() < 0.01


def test_averaging_back_leaves_the_image_but_for_a_blur():
    shrink = ResidualBlock(3, 4, original_size=32).shrink
    impulse = torch.zeros(1, 1, 32, 32)
    impulse[0, 0, 16, 16] = 1
    blurred = shrink(v2.Resize([64, 64], antialias=True)(impulse))
    row = torch.tensor([1, 6, 1]) / 8
    torch.testing.assert_close(blurred[0, 0, 15:18, 15:18], row[:, None] * row[None])


def test_whitened_filters_give_uncorrelated_outputs_of_unit_variance():
    generator = torch.Generator().manual_seed(0)
    # neighbouring pixels are alike, as in photographs
    images = torch.randn(40, 3, 32, 32, generator=generator)
    images = nn.functional.avg_pool2d(images, 3, stride=1, padding=1) * 3
    network = ThreeBlockNet((64, 8, 8))
    whiten_first_convolution(network, images)
    convolution = network.block1.whiten[0]
    with torch.no_grad():
        inner = convolution(images)[:, :12, 1:-1, 1:-1]
    covariance = inner.permute(1, 0, 2, 3).flatten(1).cov()
    off_diagonal = covariance - covariance.diag().diag()
    assert off_diagonal.abs().max() < 0.01
    assert covariance.diag().max() < 1.01
    assert covariance.diag().min() > 0.5  # the 1e-2 in it damps the weakest axes
    assert torch.equal(convolution.weight[:12], -convolution.weight[12:])
    assert not convolution.weight.requires_grad


def test_whitening_takes_enlarged_images():
    network = ThreeBlockNet(WIDTHS)
    whiten_first_convolution(network, torch.randn(10, 3, 64, 64))
    assert network.block1.whiten[0].weight.isfinite().all()


def test_only_the_first_block_whitens():
    network = ThreeBlockNet(WIDTHS)
    assert isinstance(network.block1.whiten, nn.Sequential)
    assert isinstance(network.block2.whiten, nn.Identity)
    assert isinstance(network.block3.whiten, nn.Identity)
