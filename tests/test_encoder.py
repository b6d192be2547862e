"""Encoder and decoder against plain functional calls with the same weights."""

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, interpolate, max_pool2d

from src.vision_tasks.shared import encoder
from src.vision_tasks.shared.encoder import (
    CHANNELS,
    Decoder,
    Encoder,
    Features,
    UpsampleBlock,
    check_images,
    convolution,
    start_weights,
)
from src.weights import PretrainedWeights

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    mean, var = norm.running_mean, norm.running_var
    return batch_norm(x, mean, var, norm.weight, norm.bias, eps=1e-5)


def convolved(layers: nn.Sequential, x: Tensor, dilation: int = 1) -> Tensor:
    x = conv2d(x, layers[0].weight, padding=dilation, dilation=dilation)
    return normalised(layers[1], x).clamp(min=0)


def enlarged(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def residual(block: nn.Module, x: Tensor, stride: int) -> Tensor:
    """ResNet's basic block."""
    y = conv2d(x, block.conv1.weight, stride=stride, padding=1)
    y = normalised(block.bn1, y).clamp(min=0)
    y = normalised(block.bn2, conv2d(y, block.conv2.weight, padding=1))
    if stride == 2:
        reduce, norm = block.downsample
        x = normalised(norm, conv2d(x, reduce.weight, stride=2))
    return (x + y).clamp(min=0)


def exactly(one: Tensor, other: Tensor) -> None:
    assert one.abs().max() > 0.01
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.fixture
def weights(monkeypatch) -> PretrainedWeights:
    """The project's, as if they had been trained on images of other colours."""
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    changed = replace(start_weights(), mean=mean, std=std)
    monkeypatch.setattr(encoder, "start_weights", lambda: changed)
    return changed


@pytest.mark.parametrize("pretrained", [False, True])
def test_the_encoder_is_resnet18_on_normalised_images(drawn_norms, weights, pretrained):
    torch.manual_seed(0)
    model = drawn_norms(Encoder(pretrained=pretrained))
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64)
    mean, std = (weights.mean, weights.std) if pretrained else IMAGENET
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
    x = conv2d((images - mean) / std, model.stem[0].weight, stride=2, padding=3)
    expected = [normalised(model.stem[1], x).clamp(min=0)]
    x = max_pool2d(expected[0], kernel_size=3, stride=2, padding=1)
    for layer, stride in [
        (model.layer1, 1),
        (model.layer2, 2),
        (model.layer3, 2),
        (model.layer4, 2),
    ]:
        x = residual(layer[1], residual(layer[0], x, stride), 1)
        expected.append(x)
    features = model(images)
    assert isinstance(features, Features)
    for level, (feature, wanted) in enumerate(zip(features, expected, strict=True), 1):
        exactly(feature, wanted)
        assert feature.shape == (2, CHANNELS[level - 1], 32 >> level, 64 >> level)


def test_the_pre_trained_start_has_the_weights_and_is_trained_on(weights):
    model = Encoder(pretrained=True)
    for name, value in weights.state_dict.items():
        if not name.startswith("layer"):
            name = name.replace("conv1", "stem.0").replace("bn1", "stem.1")
        if not name.startswith("fc."):
            assert torch.equal(model.state_dict()[name], value), name
    assert model.mean.flatten().tolist() == pytest.approx(weights.mean)
    assert model.std.flatten().tolist() == pytest.approx(weights.std)
    for one in (model, Encoder()):  # the weights come in eval mode
        assert all(module.training for module in one.modules())
        assert all(p.requires_grad for p in one.parameters())
    # what is kept of a model tells how its images are normalised
    other = Encoder()
    other.load_state_dict(model.state_dict())
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.eval()(images)[4], other.eval()(images)[4])


def test_random_weights_come_from_the_seed_alone(monkeypatch):
    monkeypatch.setattr(encoder, "start_weights", lambda: pytest.fail("not asked for"))
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(Encoder().layer4[1].conv2.weight)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_start_is_read_once_and_is_the_embedded_one(monkeypatch):
    asked = []
    monkeypatch.setattr(
        encoder, "load_pretrained", lambda *which: asked.append(which) or "weights"
    )
    start_weights.cache_clear()
    try:
        assert start_weights() == start_weights() == "weights"
        assert asked == [("standin",)]  # whatever else there is on this machine
    finally:
        start_weights.cache_clear()


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_a_convolution_is_followed_by_batch_norm_and_relu(drawn_norms, dilation):
    torch.manual_seed(0)
    layers = convolution(3, 5, dilation)
    x = random(2, 3, 7, 9)
    drawn_norms(layers)
    exactly(layers(x), convolved(layers, x, dilation))
    assert layers(x).shape == (2, 5, 7, 9)
    assert layers[0].bias is None  # BatchNorm has one
    y = conv2d(x, layers[0].weight, padding=dilation, dilation=dilation)
    norm = layers[1]
    y = batch_norm(y, None, None, norm.weight, norm.bias, training=True, eps=1e-5)
    exactly(layers.train()(x), y.clamp(min=0))


def test_an_upsample_block_convolves_the_enlarged_beside_the_skip_connection(
    drawn_norms,
):
    torch.manual_seed(0)
    block = drawn_norms(UpsampleBlock(3, 2, 4))
    x, skip = random(2, 3, 2, 3), random(2, 2, 4, 6)
    joined = torch.cat([enlarged(x), skip], dim=1)
    exactly(block(x, skip), convolved(block.convolve, joined))


def test_the_decoder_looks_again_at_every_level(drawn_norms):
    torch.manual_seed(0)
    decoder = drawn_norms(Decoder(3))
    features = Features(
        *(random(2, n, 64 >> i, 32 >> i) for i, n in enumerate(CHANNELS, start=1))
    )
    x = features.thirtysecond
    for block, skip, channels in [
        (decoder.to_sixteenth, features.sixteenth, 128),
        (decoder.to_eighth, features.eighth, 64),
        (decoder.to_quarter, features.quarter, 48),
        (decoder.to_half, features.half, 32),
    ]:
        x = convolved(block.convolve, torch.cat([enlarged(x), skip], dim=1))
        assert x.shape[1] == channels
    x = conv2d(x, decoder.head.weight, decoder.head.bias, padding=1)
    x = interpolate(x, size=(64, 32), mode="bilinear", align_corners=False)
    exactly(decoder(features), x)


@pytest.mark.parametrize("size", [(224, 224), (64, 96)])
def test_the_decoder_goes_back_to_the_images_size(size):
    model = nn.Sequential(Encoder(), Decoder(5)).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, *size)).shape == (1, 5, *size)


@pytest.mark.parametrize(
    "shape",
    [(2, 4, 64, 64), (2, 1, 64, 64), (3, 64, 64), (2, 3, 64), (0, 3, 64, 64)],
)
def test_what_is_no_batch_of_images_is_named(shape):
    named = re.escape(f"expected images [B, 3, H, W], got {list(shape)}")
    with pytest.raises(ValueError, match=f"^{named}$"):
        check_images(torch.zeros(shape))
    with pytest.raises(ValueError, match=named):
        Encoder()(torch.zeros(shape))


@pytest.mark.parametrize("size", [(100, 64), (64, 100)])
def test_sizes_that_the_stride_does_not_divide_are_named(size):
    wanted = f"multiples of 32, got {size[0]} x {size[1]}: resize or pad the image"
    with pytest.raises(ValueError, match=wanted):
        check_images(torch.zeros(1, 3, *size))
    check_images(torch.zeros(1, 3, *size), multiple=4)
    check_images(torch.zeros(1, 5, 64, 32), channels=5)
    with pytest.raises(
        ValueError, match=r"images \[B, 5, H, W\], got \[1, 3, 64, 32\]"
    ):
        check_images(torch.zeros(1, 3, 64, 32), channels=5)


def test_the_transposed_convolution_of_the_sketch_enlarges_eightfold_only():
    """The module's docstring says so."""
    layer = nn.ConvTranspose2d(512, 1, kernel_size=16, stride=8, padding=4)
    assert layer(torch.zeros(1, 512, 7, 7)).shape[2:] == (56, 56)  # not 224
