"""Inpainting: the network, masks and fillings written out, what may not leak, loss."""

import copy
import math
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv2d

from src.vision_tasks.shared.image_quality import psnr
from src.vision_tasks.shared.real_images import SHOWN, real_images
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import make_scenes
from src.vision_tasks.tasks import image_inpainting
from src.vision_tasks.tasks.image_inpainting import (
    NUMBERS,
    ImageInpainting,
    Inpainted,
    Inpainter,
    diffusion_fill,
    draw_masks,
    hole_metrics,
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


@pytest.fixture
def photos(monkeypatch):
    """Three real test images instead of all 500, so that measuring takes no time."""
    some = real_images(train=False)[:3]
    monkeypatch.setattr(
        image_inpainting, "real_images", lambda train: {False: some}[train]
    )
    return some.float() / 255


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the network ---


def inpainted(model, images, missing, change=""):
    """The network written out after encoder and decoder; `change` alters a part."""
    hole = missing == 1
    steps = 60 if change == "iterations" else 20
    smooth = torch.from_numpy(spread(images.numpy(), missing.numpy() == 1, steps))
    seen = images if change == "filling before encoding" else smooth
    x = model.decoder(model.encoder(seen))
    centred = smooth if change == "centring" else smooth - 0.5
    mask = torch.zeros_like(missing) if change == "mask channel" else missing
    x = torch.cat([0 * x if change == "decoder" else x, centred, mask], dim=1)
    dilations = (1, 1, 1, 1) if change == "dilations" else (1, 2, 4, 1)
    for (layer, norm, _), dilation in zip(model.refine, dilations, strict=True):
        x = conv2d(x, layer.weight, padding=dilation, dilation=dilation)
        x = batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        ).relu()
    x = conv2d(x, model.head.weight, model.head.bias, padding=1)
    painted = x if change == "smooth start" else smooth + x
    return Inpainted(torch.where(hole, painted, images), painted)


@torch.no_grad()
def test_the_network_is_what_is_written_out_here(model):
    model = copy.deepcopy(model).double()
    images = torch.rand(2, 3, 32, 64, dtype=torch.float64, generator=seeded())
    missing = some_masks(2, 32, 64).double()
    output, expected = model(images, missing), inpainted(model, images, missing)
    for part, other in zip(output, expected, strict=True):
        torch.testing.assert_close(part, other, rtol=0, atol=1e-9)
    for change in (
        "iterations",
        "filling before encoding",
        "centring",
        "mask channel",
        "decoder",
        "dilations",
        "smooth start",
    ):
        other = inpainted(model, images, missing, change).painted
        assert (output.painted - other).abs().max() > 1e-4, change


def test_size_and_recipe_are_those_of_the_page(monkeypatch):
    model = TASK.build_model()
    assert sum(p.numel() for p in model.parameters()) == 12_335_955
    assert TASK.recipe == TaskRecipe(
        steps=700,
        batch_size=8,
        learning_rate=1e-3,
        weight_decay=0.01,
        pretrained=True,
        seed=13,
    )
    assert (TASK.metric, TASK.higher_is_better) == ("PSNR in the hole (dB)", True)
    assert (TASK.baseline_name, TASK.test_split) == ("diffusion fill", "test")
    images, masks = TASK.example_inputs()
    assert images.shape == (2, 3, 224, 224) and masks.shape == (2, 1, 224, 224)
    assert not torch.equal(masks[0], masks[1])
    asked = []
    monkeypatch.setattr(
        image_inpainting,
        "Encoder",
        lambda *, pretrained: asked.append(pretrained) or torch.nn.Identity(),
    )
    for pretrained in (True, False):
        TASK.build_model(pretrained=pretrained)
    assert asked == [True, False]


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
    images, missing = torch.rand(2, 3, 32, 64), some_masks(2, 32, 64)
    output = Inpainter().eval()(images, missing)
    assert torch.equal(output.image, diffusion_fill(images, missing, iterations=20))
    assert torch.equal(output.painted, output.image)


# --- masks ---


def missing_at(numbers, x, y):
    """Whether a mask's numbers hide the point (x, y), in plain arithmetic."""
    boxes, points, half_width = numbers[:8], numbers[8:26], numbers[26]
    for box in (0, 1):
        middle_x, middle_y, wide, high = boxes[box::2]
        if (
            abs(x - middle_x) <= (0.08 + 0.12 * wide) / 2
            and abs(y - middle_y) <= (0.08 + 0.12 * high) / 2
        ):
            return True
    corners = list(zip(points[:9], points[9:], strict=True))
    for (x1, y1), (x2, y2) in pairwise(corners):
        part = (x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)
        part = min(max(part / ((x2 - x1) ** 2 + (y2 - y1) ** 2), 0), 1)
        nearest = x1 + part * (x2 - x1), y1 + part * (y2 - y1)
        if math.dist((x, y), nearest) <= 0.012 + 0.018 * half_width:
            return True
    return False


def test_masks_are_what_is_written_out_here():
    numbers = torch.rand(8, 27, generator=seeded(4))
    masks = draw_masks(numbers, 20, 30)
    assert masks.shape == (8, 1, 20, 30) and masks.dtype == torch.float32
    for mask, row in zip(masks[:, 0].tolist(), numbers.tolist(), strict=True):
        expected = [
            [missing_at(row, (x + 0.5) / 30, (y + 0.5) / 20) for x in range(30)]
            for y in range(20)
        ]
        assert mask == expected


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
    total = int(scenes.images[2].double().sum())
    numbers = torch.rand(NUMBERS, generator=seeded(total))
    assert torch.equal(masks[2:3], draw_masks(numbers[None], 64, 64))
    (images, missing), targets = (batch := TASK.prepare(scenes)).inputs, batch.targets
    assert torch.equal(images, scenes.images.float() / 255)
    assert torch.equal(missing, masks)
    assert all(map(torch.equal, targets, (images, missing)))


def test_training_examples_are_mirrored_or_real_with_masks_of_their_own(scenes):
    """Each drawn image as it is or mirrored, or in a fourth of the batches photos."""
    flips, real = [], 0
    known = {image.numpy().tobytes() for image in real_images(train=True)}
    for seed in range(40):
        example = TASK.prepare(scenes, seeded(seed))
        images, missing = example.inputs
        assert all(map(torch.equal, example.targets, (images, missing)))
        assert missing.shape == (len(images), 1, *images.shape[2:])
        assert len(missing.unique(dim=0)) == len(missing)
        images = (images * 255).round().byte()
        assert not torch.equal(missing, masks_of(images))
        if images.shape[2:] == (32, 32):
            real += 1
            assert len(images) == 16
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
    first, again, other = (TASK.prepare(scenes, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.inputs[1], again.inputs[1])
    assert not torch.equal(first.inputs[1], other.inputs[1])


# --- fillings ---


def spread(images, hole, steps):
    """Diffusion from coarse to fine in numpy, of [B, C, H, W] and [B, 1, H, W]."""
    height, width = images.shape[2:]
    known = np.where(hole, 0.0, images)
    if hole.any() and height % 2 == 0 and width % 2 == 0 and min(height, width) > 4:

        def blocks(x):
            return x.reshape(*x.shape[:2], height // 2, 2, width // 2, 2)

        count = blocks(~hole).sum(axis=(3, 5))
        coarse = blocks(known).sum(axis=(3, 5)) / np.maximum(count, 1)
        start = spread(coarse, count == 0, steps)
        for axis in (2, 3):  # bilinear: 3/4 of the nearest, 1/4 of the next
            edge = [(0, 0)] * 4
            edge[axis] = (1, 1)
            padded = np.pad(start, edge, mode="edge")
            size = start.shape[axis]
            before, here, after = (
                np.take(padded, np.arange(size) + k, axis) for k in range(3)
            )
            both = np.stack(
                [0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1
            )
            shape = list(start.shape)
            shape[axis] *= 2
            start = both.reshape(shape)
    else:
        count = np.maximum((~hole).sum(axis=(2, 3), keepdims=True), 1)
        start = known.sum(axis=(2, 3), keepdims=True) / count
    filled = np.where(hole, start, images)
    for _ in range(steps):
        p = np.pad(filled, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
        mean = (p[..., 1:-1, :-2] + p[..., 1:-1, 2:] + p[..., :-2, 1:-1]) / 4
        filled = np.where(hole, mean + p[..., 2:, 1:-1] / 4, images)
    return filled


@pytest.mark.parametrize("size", [(32, 48), (12, 20), (9, 8), (4, 8), (6, 7)])
def test_diffusion_is_what_is_written_out_here(size):
    images = torch.rand(3, 3, *size, dtype=torch.float64, generator=seeded())
    missing = (torch.rand(3, 1, *size, generator=seeded(1)) < 0.5).double()
    missing[0, :, : size[0] // 2 + 1] = 1  # a large hole, and an image without
    missing[1] = 0
    hole = missing.numpy() == 1
    for steps in (0, 1, 7):
        expected = torch.from_numpy(spread(images.numpy(), hole, steps))
        found = diffusion_fill(images, missing, steps)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    found = diffusion_fill(images, missing)
    assert torch.equal(found, diffusion_fill(images, missing, iterations=60))
    assert not torch.equal(found, diffusion_fill(images, missing, iterations=59))


def test_diffusion_solves_the_equation_of_laplace():
    """In the limit, every missing pixel is the mean of its four neighbours."""
    images = torch.rand(1, 1, 8, 10, dtype=torch.float64, generator=seeded())
    missing = torch.zeros(1, 1, 8, 10)
    missing[..., 2:7, 0:4] = 1  # up to the image's edge
    filled = diffusion_fill(images, missing, 2000)[0, 0]
    padded = torch.nn.functional.pad(filled[None, None], (1, 1, 1, 1), mode="replicate")
    p = padded[0, 0]
    mean = (p[1:-1, :-2] + p[1:-1, 2:] + p[:-2, 1:-1] + p[2:, 1:-1]) / 4
    hole = missing[0, 0] == 1
    torch.testing.assert_close(filled[hole], mean[hole], rtol=0, atol=1e-9)
    assert torch.equal(filled[~hole], images[0, 0][~hole])


def test_mean_filling_of_several_images():
    images = torch.rand(3, 3, 5, 6, dtype=torch.float64, generator=seeded())
    missing = (torch.rand(3, 1, 5, 6, generator=seeded(1)) < 0.4).double()
    missing[2] = 1
    means = torch.zeros(3, 3, 1, 1, dtype=torch.float64)
    for i in (0, 1):
        means[i, :, 0, 0] = images[i][:, missing[i, 0] == 0].mean(dim=1)
    torch.testing.assert_close(known_mean(images, missing), means)
    expected = missing * means + (1 - missing) * images
    torch.testing.assert_close(mean_fill(images, missing), expected)


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


def test_loss_written_out():
    """L1 in the hole, 0.2 of what is known, 0.1 of the differences of neighbours."""
    truth, painted = torch.rand(2, 2, 3, 5, 7, dtype=torch.float64, generator=seeded())
    missing = (torch.rand(2, 1, 5, 7, generator=seeded(1)) < 0.3).double()
    image = torch.where(missing == 1, painted, truth)
    holes = int(missing.sum()) * 3
    error = (image - truth).numpy()
    hole = np.abs(error).sum() / holes
    valid = np.abs((painted - truth).numpy() * (1 - missing.numpy())).sum() / 210
    down = np.abs(error[:, :, 1:] - error[:, :, :-1]).sum()
    right = np.abs(error[..., 1:] - error[..., :-1]).sum()
    expected = hole + 0.2 * valid + 0.1 * (down + right) / (2 * holes)
    loss = TASK.loss(Inpainted(image, painted), (truth, missing))
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert TASK.loss(Inpainted(truth, truth), (truth, missing)) == 0


# --- measures ---


class Contrast(torch.nn.Module):
    """Stands for a network whose values leave [0, 1]."""

    def forward(self, images, missing):
        painted = 3 * mean_fill(images, missing) - 1
        return Inpainted(torch.where(missing == 1, painted, images), painted)


def test_measure_and_baselines(scenes, photos):
    drawn = scenes.images.float() / 255
    holes, real_holes = masks_of(scenes.images), masks_of((photos * 255).round().byte())
    deep = inside(holes, 3)
    deep_ones = deep.flatten(1).any(1)

    def expected(fill):
        filled, real = fill(drawn, holes), fill(photos, real_holes)
        far = psnr(filled[deep_ones], drawn[deep_ones], deep[deep_ones])
        return {
            "PSNR in the hole (dB)": psnr(filled, drawn, holes).mean().item(),
            "the same, over 3 px inside": far.mean().item(),
            "PSNR in the hole (dB), CIFAR-10": psnr(real, photos, real_holes)
            .mean()
            .item(),
        }

    measured = TASK.measure(Contrast(), scenes)
    clamped = expected(lambda *pair: (3 * mean_fill(*pair) - 1).clamp(0, 1))
    assert measured == pytest.approx(clamped)
    baselines = TASK.baselines(None, scenes)
    assert list(baselines) == ["diffusion fill", "mean fill"]
    assert baselines["mean fill"] == pytest.approx(expected(mean_fill))
    assert baselines["diffusion fill"] == pytest.approx(expected(diffusion_fill))
    assert TASK.baseline(scenes, scenes) == baselines["diffusion fill"][TASK.metric]


def test_a_perfect_and_a_black_filling():
    truth = torch.full((1, 3, 12, 12), 0.5)
    missing = torch.zeros(1, 1, 12, 12)
    missing[..., 2:10, 2:10] = 1  # only the middle 2 x 2 is over 3 px inside
    assert set(hole_metrics(truth, truth, missing).values()) == {math.inf}
    wrong = truth.clone()
    wrong[..., 5:7, 5:7] = 0
    around, deep = hole_metrics(wrong, truth, missing).values()
    assert deep == pytest.approx(10 * math.log10(4), abs=1e-4)
    assert around == pytest.approx(10 * math.log10(4 * 16), abs=1e-4)


def test_figure(scenes):
    figure = TASK.figure(Contrast(), scenes)
    assert [axis.get_title() for axis in figure.axes[:4]] == [
        "input",
        "diffusion",
        "prediction",
        "truth",
    ]
    magenta = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    truths = [*scenes.images[:3], real_images(train=False)[SHOWN]]
    for row, image in enumerate(truths):
        axes = figure.axes[4 * row : 4 * row + 4]
        truth, missing = image[None].float() / 255, masks_of(image[None])
        pictures = [
            torch.where(missing == 1, magenta, truth),
            diffusion_fill(truth, missing),
            Contrast()(truth, missing).image.clamp(0, 1),
            truth,
        ]
        for axis, picture in zip(axes, pictures, strict=True):
            shown = torch.from_numpy(axis.images[0].get_array().data)
            torch.testing.assert_close(shown, picture[0].permute(1, 2, 0))
        assert [axis.get_xlabel() for axis in axes] == [
            "",
            *(
                f"{psnr(p, truth, missing).item():.1f} dB in the hole"
                for p in pictures[1:3]
            ),
            "",
        ]
    assert [axis.get_ylabel() for axis in figure.axes[::4]] == ["", "", "", "CIFAR-10"]
    plt.close(figure)


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
