"""Super-resolution: the network and its loss written out, pairs, measures, learning."""

import dataclasses
import math

import matplotlib.pyplot as plt
import pytest
import torch
from torch.nn.functional import conv2d, pixel_shuffle

from src.vision_tasks.shared.image_quality import psnr, ssim
from src.vision_tasks.shared.real_images import SHOWN, real_images, some_real
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks import super_resolution
from src.vision_tasks.tasks.super_resolution import (
    SuperResolution,
    SuperResolver,
    charbonnier,
    shrink,
    upsample,
)

TASK = SuperResolution()


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(4, seed=1, size=64)


@pytest.fixture
def photos(monkeypatch):
    """Three real test images instead of all 500, so that measuring takes no time."""
    some = real_images(train=False)[:3]
    monkeypatch.setattr(
        super_resolution, "real_images", lambda train: {False: some}[train]
    )
    return some.float() / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the network ---


def bicubic(to: int, count: int, a: float, stretch: float) -> torch.Tensor:
    """Keys' kernel as a matrix [to, count]: from `count` values to `to`."""
    rows = torch.zeros(to, count, dtype=torch.float64)
    for row in range(to):
        middle = (row + 0.5) * count / to - 0.5
        first = math.floor(middle - 2 * stretch)
        for place in range(first, first + math.ceil(4 * stretch) + 2):
            t = abs(place - middle) / stretch
            weight = 0.0
            if t <= 1:
                weight = (a + 2) * t**3 - (a + 3) * t**2 + 1
            elif t < 2:
                weight = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
            if stretch == 1:  # the outermost pixel goes on beyond the edge
                rows[row, min(max(place, 0), count - 1)] += weight
            elif 0 <= place < count:  # a wide filter ends at the edge
                rows[row, place] += weight
    return rows / rows.sum(dim=1, keepdim=True)


def enlarged(low: torch.Tensor) -> torch.Tensor:
    height, width = low.shape[2:]
    down = bicubic(4 * height, height, -0.75, 1)
    return down @ low @ bicubic(4 * width, width, -0.75, 1).T


def resolved(
    model: SuperResolver, low: torch.Tensor, without: str = ""
) -> torch.Tensor:
    """The network written out; `without` names a part to leave out."""

    def convolved(x, layer):
        return conv2d(x, layer.weight, layer.bias, padding=1)

    x = head = convolved(low - (0 if without == "centring" else 0.5), model.head)
    for block in model.body:
        first, _, second = block.residual
        inner = convolved(x, first)
        inner = convolved(inner if without == "ReLU" else inner.relu(), second)
        x = inner if without == "block's shortcut" else x + inner
        if without == "later blocks":
            break
    x = x if without == "long shortcut" else head + x
    x = pixel_shuffle(convolved(x, model.tail), 4)
    return x if without == "bicubic start" else enlarged(low) + x


@pytest.fixture(scope="module")
def lively():
    """A small network in float64 whose last layer is not zero."""
    torch.manual_seed(0)
    model = SuperResolver(channels=5, blocks=3).double()
    torch.nn.init.normal_(model.tail.weight, std=0.2)
    torch.nn.init.normal_(model.tail.bias, std=0.2)
    return model


@torch.no_grad()
def test_the_network_is_what_is_written_out_here(lively):
    low = torch.rand(2, 3, 5, 7, dtype=torch.float64, generator=seeded())
    output = lively(low)
    assert output.shape == (2, 3, 20, 28)
    torch.testing.assert_close(output, resolved(lively, low), rtol=0, atol=1e-12)
    for part in (
        "centring",
        "ReLU",
        "block's shortcut",
        "later blocks",
        "long shortcut",
        "bicubic start",
    ):
        assert (output - resolved(lively, low, part)).abs().max() > 0.01, part


@torch.no_grad()
def test_an_untrained_network_is_bicubic_interpolation():
    model, low = TASK.build_model(), torch.rand(1, 3, 6, 8, generator=seeded())
    assert torch.equal(model(low), upsample(low))
    torch.testing.assert_close(
        upsample(low.double()), enlarged(low.double()), rtol=0, atol=1e-12
    )


def test_size_and_recipe_are_those_of_the_page():
    model = TASK.build_model(pretrained=True)  # there is nothing pre-trained in it
    assert sum(p.numel() for p in model.parameters()) == 472_624
    assert len(model.body) == 6
    assert TASK.recipe == TaskRecipe(
        steps=1000,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.01,
        pretrained=False,
        seed=13,
    )
    assert (TASK.metric, TASK.higher_is_better) == ("PSNR (dB)", True)
    assert (TASK.baseline_name, TASK.test_split) == ("bicubic interpolation", "test")
    (low,) = TASK.example_inputs(3)
    assert low.shape == (3, 3, 56, 56)
    assert [len(each) for each in TASK.example_inputs()] == [2]


def test_bad_input_is_refused():
    model = TASK.build_model()
    with pytest.raises(ValueError, match=r"\[1, 1, 8, 8\]"):
        model(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="multiples of 4, got 30 x 32"):
        shrink(torch.rand(1, 3, 30, 32))


# --- shrinking ---


def test_shrinking_is_a_wide_bicubic_filter_in_256_levels():
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64, generator=seeded())
    image[0] = (image[0] > 0.5).double()  # the filter overshoots at such contrasts
    image[1, :, :, 12:] = 1
    down, right = bicubic(4, 16, -0.5, 4), bicubic(6, 24, -0.5, 4)
    exact = down @ image @ right.T * 255
    assert exact.max() > 255.5
    levels = shrink(image) * 255
    torch.testing.assert_close(levels, exact.round().clamp(0, 255), rtol=0, atol=1e-9)
    dark = shrink(1 - image) * 255
    assert dark.min() == 0


def test_patterns_too_fine_for_a_small_image_become_grey():
    stripes = torch.zeros(1, 3, 32, 32)
    stripes[..., ::2] = 1
    assert (shrink(stripes)[..., 1:-1] - 0.5).abs().max() < 0.05


# --- pairs for training ---


def test_examples_are_pairs(scenes):
    example = TASK.prepare(scenes)
    (low,), (truth,) = example.inputs, example.targets
    assert low.shape == (4, 3, 16, 16)
    assert torch.equal(truth, scenes.images.float() / 255)
    assert torch.equal(low, shrink(truth))


def test_training_pairs_are_mirrored_or_real(scenes):
    """Each drawn image as it is or mirrored, or in a fourth of the batches photos."""
    flips, real = [], 0
    known = {image.numpy().tobytes() for image in real_images(train=True)}
    for seed in range(40):
        example = TASK.prepare(scenes, seeded(seed))
        (low,), (truth,) = example.inputs, example.targets
        assert torch.equal(low, shrink(truth))
        images = (truth * 255).round().byte()
        if truth.shape[2:] == (32, 32):
            real += 1
            assert len(truth) == 16
            either = [
                {i.numpy().tobytes(), i.flip(-1).numpy().tobytes()} for i in images
            ]
            assert all(each & known for each in either)
            assert not all(image.numpy().tobytes() in known for image in images)
            continue
        for image, original in zip(images, scenes.images, strict=True):
            flips.append(torch.equal(image, original.flip(-1)))
            assert flips[-1] or torch.equal(image, original)
    assert 4 <= real <= 16
    assert 0.3 < sum(flips) / len(flips) < 0.7


def test_a_fourth_of_the_batches_are_real(scenes):
    generator = seeded()
    batches = [some_real(scenes.images, generator) for _ in range(400)]
    real = [batch for batch in batches if batch.shape[2:] == (32, 32)]
    assert {len(batch) for batch in real} == {16}  # the pixels of 4 images of 64 x 64
    assert 75 < len(real) < 125
    assert sum(batch is scenes.images for batch in batches) == 400 - len(real)
    assert len(torch.cat(real).unique(dim=0)) > 700  # all of the 1,000, not the first
    tiny = [some_real(scenes.images[:1, :, :8, :8], generator) for _ in range(20)]
    assert {len(batch) for batch in tiny} == {1}


def test_real_images_are_the_sample():
    train, test = real_images(train=True), real_images(train=False)
    assert train.shape == (1000, 3, 32, 32) and test.shape == (500, 3, 32, 32)
    assert train.dtype == torch.uint8 and train.is_contiguous()
    seen = {image.numpy().tobytes() for image in train}
    assert not any(image.numpy().tobytes() in seen for image in test)


# --- loss and measures ---


def test_loss_by_hand():
    truth, noise = torch.rand(2, 2, 3, 4, 5, dtype=torch.float64, generator=seeded())
    images = truth + 0.002 * noise  # errors about as large as epsilon
    expected = sum(
        math.sqrt((a - b) ** 2 + 1e-3**2)
        for a, b in zip(
            images.flatten().tolist(), truth.flatten().tolist(), strict=True
        )
    ) / (2 * 3 * 4 * 5)
    assert charbonnier(images, truth).item() == pytest.approx(expected, rel=1e-12)
    assert TASK.loss(images, (truth,)).item() == pytest.approx(expected, rel=1e-12)
    assert charbonnier(truth, truth).item() == pytest.approx(1e-3)


class Contrast(torch.nn.Module):
    """Stands for a network whose values leave [0, 1]."""

    def forward(self, low):
        return 3 * upsample(low) - 1


def test_measure_and_baseline(scenes, photos):
    truth = scenes.images.float() / 255
    drawn, real = upsample(shrink(truth)), upsample(shrink(photos))
    for values, change in (
        (TASK.measure(Contrast(), scenes), lambda x: 3 * x - 1),
        (TASK.baselines(None, scenes)["bicubic interpolation"], lambda x: x),
    ):
        drawn_output = change(drawn).clamp(0, 1)
        real_output = change(real).clamp(0, 1)
        assert values == {
            "PSNR (dB)": pytest.approx(psnr(drawn_output, truth).mean().item()),
            "SSIM": pytest.approx(ssim(drawn_output, truth).mean().item()),
            "PSNR (dB), CIFAR-10": pytest.approx(
                psnr(real_output, photos).mean().item()
            ),
            "SSIM, CIFAR-10": pytest.approx(ssim(real_output, photos).mean().item()),
        }
    assert TASK.baseline(scenes, scenes) == values[TASK.metric]


def test_clamping_counts(scenes, photos):
    """Where bicubic interpolation overshoots white or black, that is no error."""
    images = torch.zeros_like(scenes.images)
    images[..., 32:] = 255
    steps = dataclasses.replace(scenes, images=images)
    truth = images.float() / 255
    low = upsample(shrink(truth))
    assert low.max() > 1
    measured = TASK.baselines(None, steps)[TASK.baseline_name]["PSNR (dB)"]
    assert measured == pytest.approx(psnr(low.clamp(0, 1), truth).mean().item())
    assert measured > psnr(low, truth).mean().item() + 0.05


def test_of_a_plain_image_bicubic_loses_nothing(scenes, photos):
    plain = dataclasses.replace(scenes, images=torch.full_like(scenes.images, 51))
    assert TASK.baseline(plain, plain) > 80


def test_figure(scenes):
    figure = TASK.figure(Contrast(), scenes)
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "low resolution",
        "bicubic",
        "prediction",
        "truth",
    ]
    truths = [*scenes.images[:3], real_images(train=False)[SHOWN]]
    for row, image in enumerate(truths):
        axes = figure.axes[4 * row : 4 * row + 4]
        truth = image[None].float() / 255
        low = shrink(truth)
        pictures = [low, upsample(low), 3 * upsample(low) - 1, truth]
        pictures = [picture.clamp(0, 1) for picture in pictures]
        for axis, picture in zip(axes, pictures, strict=True):
            shown = torch.from_numpy(axis.images[0].get_array().data)
            torch.testing.assert_close(shown, picture[0].permute(1, 2, 0))
        side = image.shape[-1]
        assert [axis.get_xlabel() for axis in axes] == [
            f"{side // 4} × {side // 4} pixels",
            f"{psnr(pictures[1], truth).item():.1f} dB",
            f"{psnr(pictures[2], truth).item():.1f} dB",
            f"{side} × {side} pixels",
        ]
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["", "", "", "CIFAR-10"]
    plt.close(figure)


def test_it_learns(overfit, scenes, photos):
    torch.manual_seed(0)
    model = SuperResolver(channels=16, blocks=2)
    example = TASK.prepare(scenes)
    overfit(TASK, model, example, steps=60, learning_rate=3e-3)
    output = model(*example.inputs).clamp(0, 1)
    gained = psnr(output, example.targets[0]).mean().item()
    assert gained > TASK.baseline(scenes, scenes) + 0.2
