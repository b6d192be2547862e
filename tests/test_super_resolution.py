"""Super-resolution: shapes, loss, what it is measured by, and that it learns."""

import dataclasses

import pytest
import torch
from torch.nn.functional import avg_pool2d

from src.vision_tasks.shared.image_quality import psnr
from src.vision_tasks.shared.real_images import real_images, some_real
from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks.super_resolution import (
    EPSILON,
    SuperResolution,
    SuperResolver,
    charbonnier,
    enlarge,
    shrink,
)

TASK = SuperResolution()


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(4, seed=1, size=64)


def test_shapes():
    model = TASK.build_model().eval()
    with torch.no_grad():
        assert model(*TASK.example_inputs(2)).shape == (2, 3, 224, 224)
        assert model(torch.rand(1, 3, 64, 96)).shape == (1, 3, 256, 384)
        assert model(torch.rand(1, 3, 5, 7)).shape == (1, 3, 20, 28)


def test_an_untrained_network_is_bicubic_interpolation():
    low = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(SuperResolver()(low), enlarge(low))


def test_pixel_shuffle_puts_each_channel_at_its_place():
    """With one input pixel, output channel 4y + x of the tail is the pixel (y, x)."""
    model = SuperResolver(channels=4, blocks=1)
    with torch.no_grad():
        model.tail.bias.copy_(torch.arange(48.0))
        added = model(torch.zeros(1, 3, 1, 1))[0]
    torch.testing.assert_close(added, torch.arange(48.0).view(3, 4, 4))


def test_shrinking_keeps_the_mean_and_removes_fine_patterns():
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1  # finer than a small image can hold: must become grey
    inner = shrink(stripes)[..., 1:-1]
    assert shrink(stripes).shape == (1, 3, 8, 8)
    assert (inner - 0.5).abs().max() < 0.05
    image = torch.rand(1, 3, 64, 64)
    assert (shrink(image) - avg_pool2d(image, 4)).abs().mean() < 0.1


def test_shrunk_images_have_256_levels():
    levels = shrink(torch.rand(2, 3, 16, 16)) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    assert levels.min() >= 0 and levels.max() <= 255


def test_loss_by_hand():
    truth = torch.zeros(1, 1, 1, 2)
    images = torch.tensor([0.3, 0.0]).view(1, 1, 1, 2)
    expected = ((0.09 + EPSILON**2) ** 0.5 + EPSILON) / 2
    assert charbonnier(images, truth).item() == pytest.approx(expected)
    assert charbonnier(truth, truth).item() == pytest.approx(EPSILON)
    assert charbonnier(images, truth) > charbonnier(images / 2, truth)


def test_examples_are_pairs(scenes):
    example = TASK.prepare(scenes)
    (low,), (truth,) = example.inputs, example.targets
    assert low.shape == (4, 3, 16, 16)
    torch.testing.assert_close(truth * 255, scenes.images.float())
    torch.testing.assert_close(low, shrink(truth))


def test_a_fourth_of_the_batches_are_real(scenes):
    generator = torch.Generator().manual_seed(0)
    sizes = [some_real(scenes.images, generator).shape for _ in range(200)]
    real = [size for size in sizes if size[2:] == (32, 32)]
    assert set(real) == {(16, 3, 32, 32)}  # as many pixels as 4 images of 64 x 64
    assert 30 < len(real) < 70
    assert sizes.count(scenes.images.shape) == 200 - len(real)


def test_real_images_are_the_sample():
    train, test = real_images(train=True), real_images(train=False)
    assert train.shape == (1000, 3, 32, 32) and test.shape == (500, 3, 32, 32)
    assert train.dtype == torch.uint8
    seen = {image.numpy().tobytes() for image in train}
    assert not any(image.numpy().tobytes() in seen for image in test)


def test_measures_of_the_untrained_network_are_the_baseline(scenes):
    values = TASK.measure(TASK.build_model().eval(), scenes)
    bicubic = TASK.baselines(scenes, scenes)[TASK.baseline_name]
    assert len(values) == 4
    assert values == pytest.approx(bicubic, abs=1e-3)


def test_of_a_plain_image_bicubic_loses_nothing(scenes):
    plain = dataclasses.replace(scenes, images=torch.full_like(scenes.images, 51))
    assert TASK.baseline(plain, plain) > 80


def test_bad_input_is_refused():
    model = TASK.build_model()
    with pytest.raises(ValueError, match=r"\[1, 1, 8, 8\]"):
        model(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="multiples of 4, got 30 x 32"):
        shrink(torch.rand(1, 3, 30, 32))


def test_it_learns(overfit, scenes):
    torch.manual_seed(0)
    model = SuperResolver(channels=16, blocks=2)
    example = TASK.prepare(scenes)
    overfit(TASK, model, example, steps=60, learning_rate=3e-3)
    output = model(*example.inputs).clamp(0, 1)
    gained = psnr(output, example.targets[0]).mean().item()
    assert gained > TASK.baseline(scenes, scenes) + 0.2
