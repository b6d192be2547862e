"""The three-block network: its shapes, and what each of its blocks does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms import v2

from src.residual_net import ResidualBlock, ThreeBlockNet

WIDTHS = (8, 16, 24)


def test_a_block_halves_height_and_width():
    block = ResidualBlock(3, 5)
    assert block(torch.zeros(2, 3, 12, 20)).shape == (2, 5, 6, 10)
    assert ResidualBlock(3, 5, start_size=8)(torch.zeros(2, 3, 56, 56)).shape == (
        2, 5, 4, 4
    )  # fmt: skip


def test_a_block_adds_its_shortcut():
    block = ResidualBlock(3, 5).eval()
    image = torch.randn(2, 3, 8, 8)
    nn.init.zeros_(block.residual[-1].weight)  # then F(x) = 0
    nn.init.zeros_(block.residual[-1].bias)
    assert torch.equal(block(image), torch.relu(block.shortcut(image)))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_shapes_on_the_way(size):
    network = ThreeBlockNet(WIDTHS, classes=7).eval()
    image = torch.zeros(2, 3, size, size)
    first = network.block1(image)
    assert first.shape == (2, 8, 16, 16)
    second = network.block2(first)
    assert second.shape == (2, 16, 8, 8)
    third = network.block3(second)
    assert third.shape == (2, 24, 4, 4)
    assert network(image).shape == (2, 7)


def plain(network: ThreeBlockNet, x: torch.Tensor, **replaced) -> torch.Tensor:
    """The forward pass in functional calls, parts of it replaced by others."""
    use = {
        "shrink": lambda x: (
            x.unflatten(2, (32, -1)).unflatten(4, (32, -1)).mean((3, 5))
        ),
        "halve": lambda x: F.max_pool2d(x, 2),
        "norm": lambda x, n: (
            (x - n.running_mean[:, None, None])
            / (n.running_var + 1e-5).sqrt()[:, None, None]
            * n.weight[:, None, None]
            + n.bias[:, None, None]
        ),
        "between": lambda x: x.clamp(min=0),
        "skip": lambda x: F.avg_pool2d(x, 2),
        "add": torch.add,
        "after": lambda x: x.clamp(min=0),
        "last": lambda x: x.mean((2, 3)),
    } | replaced
    x = use["shrink"](x)
    for block in (network.block1, network.block2, network.block3):
        first, _, norm1, _, second, norm2 = block.residual
        inner = use["halve"](F.conv2d(x, first.weight, padding=1))
        inner = use["between"](use["norm"](inner, norm1))
        inner = use["norm"](F.conv2d(inner, second.weight, padding=1), norm2)
        _, one, norm3 = block.shortcut
        side = use["norm"](F.conv2d(use["skip"](x), one.weight), norm3)
        x = use["after"](use["add"](inner, side))
    return F.linear(use["last"](x), network.fc.weight, network.fc.bias)


@pytest.fixture
def network(drawn_norms):
    torch.manual_seed(0)
    return drawn_norms(ThreeBlockNet(WIDTHS))


@pytest.mark.parametrize("size", [32, 64, 224])
def test_the_network_is_what_its_docstring_says(network, size):
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            network(image), plain(network, image), rtol=0, atol=1e-10
        )


@pytest.mark.parametrize(
    "other",
    [
        {"shrink": lambda x: x[:, :, ::2, ::2]},
        {"halve": lambda x: F.avg_pool2d(x, 2)},
        {"norm": lambda x, _: x},
        {"between": lambda x: x},
        {"skip": lambda x: F.max_pool2d(x, 2)},
        {"add": torch.sub},
        {"add": lambda inner, side: inner},
        {"after": lambda x: x},
        {"last": lambda x: x.amax((2, 3))},
    ],
    ids=lambda other: next(iter(other)),
)
def test_each_part_of_the_network_matters(network, other):
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert (network(image) - plain(network, image, **other)).abs().max() > 1e-3


def test_exactly_three_blocks_a_pool_and_a_head():
    network = ThreeBlockNet(WIDTHS)
    kinds = [type(layer) for layer in network.children()]
    assert kinds == [*[ResidualBlock] * 3, nn.AdaptiveAvgPool2d, nn.Linear]
    assert all(layer.bias is None for layer in network.modules() if is_conv(layer))
    sizes = [layer.kernel_size for layer in network.modules() if is_conv(layer)]
    assert sizes == [(3, 3), (3, 3), (1, 1)] * 3
    default = ThreeBlockNet()
    assert default.fc.weight.shape == (10, 256)
    assert [b.residual[0].out_channels for b in [*default.children()][:3]] == [
        64, 128, 256
    ]  # fmt: skip


def is_conv(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d)


def test_only_the_first_block_shrinks():
    network = ThreeBlockNet(WIDTHS)
    assert network.block1.shrink(torch.zeros(1, 3, 96, 96)).shape[2:] == (32, 32)
    for block in (network.block2, network.block3):
        image = torch.randn(1, 3, 96, 96)
        assert torch.equal(block.shrink(image), image)


def test_an_image_that_was_averaged_before_passes_unchanged():
    """So the enlarging and averaging are done once, not in every epoch."""
    torch.manual_seed(0)
    network = ThreeBlockNet(WIDTHS).eval()
    image = torch.rand(4, 3, 224, 224)
    small = nn.AdaptiveAvgPool2d(32)(image)
    assert torch.equal(network.block1.shrink(small), small)
    with torch.no_grad():
        assert torch.equal(network(small), network(image))


@pytest.mark.parametrize(
    ("size", "row"),
    [(64, torch.tensor([1, 6, 1]) / 8), (224, torch.tensor([6, 37, 6]) / 49)],
)
def test_averaging_back_leaves_the_image_but_for_a_blur(size, row):
    shrink = ResidualBlock(3, 4, start_size=32).shrink
    impulse = torch.zeros(1, 1, 32, 32)
    impulse[0, 0, 16, 16] = 1
    blurred = shrink(v2.Resize([size, size], antialias=True)(impulse))
    expected = torch.zeros(32, 32)
    expected[15:18, 15:18] = row[:, None] * row[None]
    torch.testing.assert_close(blurred[0, 0], expected, rtol=0, atol=1e-5)


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
