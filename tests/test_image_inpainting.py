"""Inpainting: shapes, what may not change or leak, masks, fillings, loss, learning."""

import math

import pytest
import torch

from src.vision_tasks.shared.image_quality import psnr
from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks.image_inpainting import (
    NUMBERS,
    ImageInpainting,
    Inpainted,
    diffusion_fill,
    draw_masks,
    inside,
    known_mean,
    masks_of,
    mean_fill,
    mean_psnr,
)

TASK = ImageInpainting()


@pytest.fixture(scope="module")
def model():
    """With a last layer that is not zero, so that it does paint something."""
    torch.manual_seed(0)
    model = TASK.build_model().eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def scenes():
    return make_scenes(4, seed=1, size=64)


def some_masks(count: int, height: int, width: int) -> torch.Tensor:
    numbers = torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(0))
    return draw_masks(numbers, height, width)


@torch.no_grad()
def test_shapes(model):
    output = model(*TASK.example_inputs(2))
    assert [part.shape for part in output] == [(2, 3, 224, 224)] * 2
    assert model(torch.rand(1, 3, 64, 96), some_masks(1, 64, 96)).image.shape == (
        1,
        3,
        64,
        96,
    )


@torch.no_grad()
def test_known_pixels_are_kept_exactly(model):
    images, missing = torch.rand(3, 3, 32, 64), some_masks(3, 32, 64)
    image, painted = model(images, missing)
    known = (missing == 0).expand_as(images)
    assert torch.equal(image[known], images[known])
    assert torch.equal(image[~known], painted[~known])
    assert not torch.equal(painted[known], images[known])


@torch.no_grad()
def test_the_hole_does_not_leak(model):
    """Whatever the image holds at missing pixels, even no number, nothing changes."""
    images, missing = torch.rand(2, 3, 32, 32), some_masks(2, 32, 32)
    for hidden in (0.0, 1.0, math.nan):
        other = images.masked_fill(missing != 0, hidden)
        assert torch.equal(
            model(other, missing).painted, model(images, missing).painted
        )


@torch.no_grad()
def test_nothing_missing_and_all_missing(model):
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(model(images, torch.zeros(1, 1, 32, 32)).image, images)
    assert model(images, torch.ones(1, 1, 32, 32)).image.isfinite().all()


@torch.no_grad()
def test_an_untrained_network_leaves_the_smooth_filling():
    torch.manual_seed(0)
    images, missing = torch.rand(2, 3, 64, 64), some_masks(2, 64, 64)
    filled = TASK.build_model()(images, missing).image
    assert (filled - diffusion_fill(images, missing)).abs().mean() < 0.004


def test_a_mask_by_hand():
    """A rectangle in the middle, and a stroke along the diagonal."""
    boxes = [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]  # two of each: x, y, width, height
    corners = [0.0, 1.0] * 4 + [0.0]
    numbers = torch.tensor([[*boxes, *corners, *corners, 0.0]])
    mask = draw_masks(numbers, 100, 100)[0, 0]
    assert mask.diagonal().all()
    assert mask[46:54, 46:54].all()  # sides of 8 % of the image
    assert mask[46:54, 56:].sum() == 0  # right of the rectangle, above the diagonal
    assert mask[80, 20] == mask[20, 80] == 0
    stroke = mask[:, 10].sum()  # a band of 2 * 1.2 pixels at 45 degrees
    assert stroke == pytest.approx(2.4 * 2**0.5, abs=1)


def test_masks_leave_much_and_hide_much():
    masks = some_masks(200, 64, 96)
    shares = masks.mean(dim=(1, 2, 3))
    assert masks.shape == (200, 1, 64, 96)
    assert set(masks.unique().tolist()) == {0, 1}
    assert shares.min() > 0.05 and shares.max() < 0.4
    assert 0.15 < shares.mean() < 0.25


def test_a_mask_is_its_images_own(scenes):
    """Not its batch's: alone or among others, an image gets the same one."""
    masks = masks_of(scenes.images)
    assert torch.equal(masks[2:3], masks_of(scenes.images[2:3]))
    assert not torch.equal(masks[0], masks[1])


def test_random_masks_come_from_the_generator(scenes):
    first, again, other = (
        TASK.prepare(scenes, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first.inputs[1], again.inputs[1])
    assert not torch.equal(first.inputs[1], other.inputs[1])


def test_fillings_by_hand():
    """A row 0, ?, ?, 3: the mean is 1.5, and heat flows evenly, 1 and 2."""
    row = torch.tensor([0.0, 9.0, 9.0, 3.0]).view(1, 1, 1, 4)
    hole = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 1, 4)
    assert known_mean(row, hole).item() == 1.5
    assert mean_fill(row, hole).flatten().tolist() == [0, 1.5, 1.5, 3]
    filled = diffusion_fill(row, hole, iterations=200).flatten()
    torch.testing.assert_close(filled, torch.tensor([0.0, 1.0, 2.0, 3.0]))


def test_diffusion_continues_a_slope_and_keeps_what_is_known():
    """A plane is harmonic: far from the image's edge, diffusion restores it."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    plane = (0.2 + 0.005 * x + 0.007 * y).expand(1, 3, 64, 64)
    hole = torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 25:44] = 1
    filled = diffusion_fill(plane.masked_fill(hole != 0, math.nan), hole)
    assert (filled - plane).abs().max() < 2e-3
    assert torch.equal(filled[..., :20, :], plane[..., :20, :])


def test_diffusion_has_converged():
    torch.manual_seed(0)
    images, missing = torch.rand(2, 3, 96, 96), some_masks(2, 96, 96)
    few, many = (diffusion_fill(images, missing, steps) for steps in (60, 600))
    assert (few - many).abs().max() < 0.06
    assert (few - many).abs().mean() < 0.004


def test_loss_by_hand():
    """Two values of a hole of six are wrong by 0.2, and one known value by 0.4."""
    truth = torch.zeros(1, 3, 1, 4)
    missing = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 1, 4)
    painted = truth.clone()
    painted[0, 0, 0, 0], painted[0, 1, 0, 1], painted[0, 2, 0, 3] = 0.2, 0.2, 0.4
    output = Inpainted(torch.where(missing != 0, painted, truth), painted)
    hole, valid = 0.4 / 6, 0.4 / 12
    gradient = (0.2 + 0.2 + 0.2) / 12  # |0.2, 0, 0|, |0.2, -0.2, 0| of the differences
    expected = hole + 0.2 * valid + 0.1 * gradient
    assert TASK.loss(output, (truth, missing)).item() == pytest.approx(expected)


def test_loss_is_zero_at_the_truth_and_grows(scenes):
    truth, missing = TASK.prepare(scenes).targets
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    values = []
    for size in (0.0, 0.1, 0.2):
        painted = truth + size * noise
        image = torch.where(missing != 0, painted, truth)
        values.append(TASK.loss(Inpainted(image, painted), (truth, missing)).item())
    assert values[0] == 0 < values[1] < values[2]


def test_measures(model, scenes):
    values = TASK.measure(model, scenes)
    truth, missing = TASK.prepare(scenes).targets
    baselines = TASK.baselines(scenes, scenes)
    for name, fill in {
        "mean fill": mean_fill,
        "diffusion fill": diffusion_fill,
    }.items():
        expected = psnr(fill(truth, missing), truth, missing).mean().item()
        assert baselines[name][TASK.metric] == pytest.approx(expected)
        assert set(baselines[name]) == set(values)


def test_far_inside_by_hand():
    """Of a hole of 7 x 5 only what has no known pixel within two remains: 3 x 1."""
    missing = torch.zeros(1, 1, 12, 12)
    missing[..., 2:9, 3:8] = 1
    far = torch.zeros(1, 1, 12, 12)
    far[..., 4:7, 5] = 1
    assert torch.equal(inside(missing, 2), far)


def test_an_image_without_a_hole_does_not_count():
    truth = torch.zeros(2, 3, 4, 4)
    missing = torch.zeros(2, 1, 4, 4)
    missing[0, 0, 1, 1] = 1
    assert mean_psnr(truth + 0.1, truth, missing) == pytest.approx(20, abs=1e-4)


def test_bad_input_is_refused(model):
    images, missing = torch.rand(2, 3, 32, 32), torch.zeros(2, 1, 32, 32)
    with pytest.raises(ValueError, match="multiples of 32, got 32 x 30"):
        model(images[..., :30], missing[..., :30])
    with pytest.raises(ValueError, match=r"expected masks \[2, 1, 32, 32\]"):
        model(images, missing[:1])
    with pytest.raises(ValueError, match=r"from 0 to 0\.5"):
        mask = missing.clone()
        mask[0, 0, 0, 0] = 0.5
        model(images, mask)


def test_it_learns(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=25, learning_rate=2e-3)
    assert losses[-1] < 0.9 * losses[0]
