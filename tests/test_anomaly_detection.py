"""Anomaly maps: the network, blobs and textures written out, AUROC, baseline, loss."""

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn, tensor
from torch.nn.functional import (
    batch_norm,
    conv2d,
    grid_sample,
    interpolate,
    softplus,
)
from torchmetrics.functional.classification import binary_auroc

from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.tasks import anomaly_detection
from src.vision_tasks.tasks.anomaly_detection import (
    AnomalyDetection,
    AnomalyDetector,
    auroc,
    blob,
    evaluate,
    image_scores,
    invent,
    texture,
    z_scores,
)

TASK = AnomalyDetection()


@pytest.fixture(scope="module")
def normal() -> Scenes:
    return make_scenes(6, seed=4, size=64)


@pytest.fixture(scope="module")
def mixed() -> Scenes:
    scenes = make_scenes(8, seed=5, size=64, anomalies=0.5)
    odd = scenes.anomaly.flatten(1).any(1)
    assert 0 < odd.sum() < len(odd)  # else choose another seed
    return scenes


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the model ---


def decoded(model: AnomalyDetector, images: torch.Tensor, without: str = ""):
    """The network written out from the encoder's features on; `without` a skip."""
    features = model.encoder(images)
    x = features.thirtysecond
    for level in ("sixteenth", "eighth", "quarter", "half"):
        layer, norm, _ = getattr(model.decoder, f"to_{level}").convolve
        x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        skip = getattr(features, level)
        x = torch.cat([x, 0 * skip if level == without else skip], dim=1)
        x = conv2d(x, layer.weight, padding=1)
        x = batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        ).relu()
    x = conv2d(x, model.decoder.head.weight, model.decoder.head.bias, padding=1)
    return interpolate(x, scale_factor=2, mode="bilinear")


@torch.no_grad()
def test_the_network_is_what_is_written_out_here():
    torch.manual_seed(0)
    model = AnomalyDetector().double().eval()
    images = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    output = model(images)
    assert output.shape == (2, 1, 64, 96)
    torch.testing.assert_close(output, decoded(model, images), rtol=0, atol=1e-10)
    for level in ("sixteenth", "eighth", "quarter", "half"):
        assert (output - decoded(model, images, level)).abs().max() > 1e-3, level


def test_size_and_recipe_are_those_of_the_page(monkeypatch):
    model = TASK.build_model()
    assert sum(p.numel() for p in model.parameters()) == 12_297_089
    assert model(*TASK.example_inputs()).shape == (2, 1, 224, 224)
    assert TASK.recipe == TaskRecipe(
        steps=450,
        batch_size=16,
        learning_rate=1e-3,
        weight_decay=0.01,
        pretrained=True,
        seed=13,
    )
    assert (TASK.metric, TASK.higher_is_better) == ("image AUROC", True)
    assert (TASK.baseline_name, TASK.test_split) == ("pixel-wise z-score", "anomalies")
    asked = []
    monkeypatch.setattr(
        anomaly_detection,
        "Encoder",
        lambda *, pretrained: asked.append(pretrained) or nn.Identity(),
    )
    for pretrained in (True, False):
        TASK.build_model(pretrained=pretrained)
    assert asked == [True, False]


@pytest.mark.parametrize("shape", [(1, 3, 64, 50), (1, 1, 64, 64), (3, 64, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images|multiples of 32"):
        AnomalyDetector()(torch.rand(shape))


# --- AUROC ---


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        # Of the four pairs (positive, negative) three are in the right order.
        ([0.1, 0.6, 0.5, 0.9], [0, 0, 1, 1], 3 / 4),
        ([7.0, 7.0, 7.0], [0, 1, 0], 1 / 2),
        # Pairs: 2 over 1, 2 ties with 2, 3 over both: (1 + 1/2 + 2) / 4.
        ([1.0, 2.0, 2.0, 3.0], [0, 0, 1, 1], 3.5 / 4),
    ],
)
def test_auroc_by_hand(scores, positive, expected):
    assert auroc(tensor(scores), tensor(positive).bool()) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_auroc_is_that_of_torchmetrics_and_the_share_of_pairs(seed):
    levels = (2, 10, 1000)[seed % 3]  # many ties, some, hardly any
    scores = torch.randint(0, levels, (5, 60), generator=seeded(seed)).float() / levels
    positive = torch.rand(5, 60, generator=seeded(seed + 100)) < 0.05 + 0.04 * seed
    one, other = scores[positive][:, None], scores[~positive][None]
    share = ((one > other).double() + 0.5 * (one == other).double()).mean().item()
    measured = auroc(scores, positive)
    assert measured == pytest.approx(share, abs=1e-12)
    assert measured == pytest.approx(binary_auroc(scores, positive).item(), abs=1e-6)
    assert auroc(3 * scores - 50, positive) == pytest.approx(measured)  # ranks only
    assert auroc(-scores, positive) == pytest.approx(1 - measured)


def test_auroc_of_one_kind_is_refused():
    with pytest.raises(ValueError, match="0 positives and 3 negatives"):
        auroc(torch.rand(3), torch.zeros(3).bool())
    with pytest.raises(ValueError, match="3 positives and 0 negatives"):
        auroc(torch.rand(3), torch.ones(3).bool())


def test_auroc_of_many_equal_pixels_is_exact():
    count = 20_000_000  # float32 cannot count so far
    scores = torch.zeros(count, dtype=torch.uint8)
    positive = torch.zeros(count, dtype=torch.bool)
    positive[:3], scores[0] = True, 1
    # One of three positives is above all; two tie with all negatives.
    assert auroc(scores, positive) == pytest.approx((1 + 0.5 + 0.5) / 3, abs=1e-12)


# --- scores ---


def test_score_of_an_image_is_the_mean_of_its_highest_half_per_cent():
    maps = torch.zeros(2, 1, 20, 20)  # 400 pixels: the highest two
    maps[0, 0, 3, 4], maps[0, 0, 9, 9], maps[0, 0, 1, 1] = 4.0, 2.0, 1.0
    maps[1] = -5
    assert image_scores(maps).tolist() == [3, -5]
    ramp = torch.arange(1000.0).view(1, 1, 20, 50)
    assert image_scores(ramp).tolist() == [997]  # of 995 to 999
    assert image_scores(ramp[..., :16, :]).tolist() == [pytest.approx(797.5)]  # of four
    assert image_scores(tensor([[[[1.0, 2.0]]]])).tolist() == [2]  # at least one


def test_evaluate_a_map_that_is_the_truth(mixed):
    truth = mixed.anomaly.unsqueeze(1).float()
    assert evaluate(truth, mixed) == {"image AUROC": 1, "pixel AUROC": 1}
    assert evaluate(-truth, mixed)["pixel AUROC"] == 0
    flat = evaluate(torch.zeros_like(truth), mixed)
    assert flat == {"image AUROC": 0.5, "pixel AUROC": 0.5}


class Reddish(nn.Module):
    """Stands for a network: an anomaly is what is redder than green."""

    def forward(self, images):
        return (images[:, :1] - images[:, 1:2]).log1p()


def test_measure_of_good_and_misleading_maps(mixed):
    """All but one anomaly are red, and one normal scene has a redder pixel or two."""
    images = torch.full_like(mixed.images, 60)
    images[:, 0][mixed.anomaly] = 200
    odd = mixed.anomaly.flatten(1).any(1)
    missed, normal = odd.nonzero()[0, 0], (~odd).nonzero()[0, 0]
    images[missed] = 60
    images[normal, 0, :5, :8] = 250  # 40 pixels: more than the highest 20
    measured = TASK.measure(Reddish(), replace(mixed, images=images))
    scores = torch.where(odd, 1.0, 0.0)
    scores[missed], scores[normal] = 0, 2
    pixels = mixed.anomaly.float()
    pixels[missed], pixels[normal, :5, :8] = 0, 2
    assert measured == {
        "image AUROC": pytest.approx(binary_auroc(scores, odd).item(), abs=1e-6),
        "pixel AUROC": pytest.approx(
            binary_auroc(pixels.flatten() / 2, mixed.anomaly.flatten()).item(), abs=1e-6
        ),
    }
    assert 0.5 < measured["pixel AUROC"] < measured["image AUROC"] < 1


def test_baseline_by_hand(normal):
    images = torch.full((2, 3, 64, 64), 100, dtype=torch.uint8)
    images[1] = 120  # mean 110, standard deviation 10
    train = replace(normal[:2], images=images)
    shown = torch.full((1, 3, 64, 64), 110, dtype=torch.uint8)
    shown[0, :, 0, 0] = 140
    shown[0, 0, 1, 1] = 95
    z = z_scores(train, replace(normal[:1], images=shown))
    assert z.shape == (1, 1, 64, 64)
    assert z[0, 0, 0, 0] == pytest.approx(3, abs=1e-4)
    assert z[0, 0, 1, 1] == pytest.approx(0.5, abs=1e-4)  # one colour of three
    assert z[0, 0, 2, 2] == pytest.approx(0, abs=1e-4)
    alike = replace(normal[:2], images=images[:1].expand(2, -1, -1, -1))
    z = z_scores(alike, replace(normal[:1], images=shown))  # a deviation of 0.001
    assert z[0, 0, 0, 0] == pytest.approx(40 / 255 / 0.001, rel=1e-4)


def test_baseline_of_many_images(normal):
    """Mean and deviation are those of all, though computed in parts."""
    images = torch.randint(0, 256, (1203, 3, 4, 5), generator=seeded()).byte()
    images[600:] //= 2
    train, test = replace(normal, images=images), replace(normal, images=images[-9:])
    values = images.double()
    z = (values[-9:] - values.mean(0)) / values.std(0, correction=0)
    expected = z.abs().mean(1, keepdim=True).float()
    torch.testing.assert_close(z_scores(train, test), expected, rtol=1e-4, atol=1e-5)


def test_baseline_finds_what_stands_out(normal, mixed):
    plain = normal.images.float().mean(0).byte().expand(len(mixed), -1, -1, -1)
    odd = torch.where(mixed.anomaly.unsqueeze(1), 255 - plain, plain)
    measured = TASK.baselines(normal, replace(mixed, images=odd))[TASK.baseline_name]
    assert measured["image AUROC"] == 1
    assert measured["pixel AUROC"] > 0.99
    assert TASK.baseline(normal, replace(mixed, images=odd)) == 1


# --- invented anomalies ---


def test_only_under_the_mask_is_much_painted():
    images = torch.rand(16, 3, 64, 64, generator=seeded())
    painted, mask = invent(images, seeded(1))
    assert painted.shape == images.shape and mask.shape == (16, 1, 64, 64)
    assert set(mask.unique().tolist()) == {0, 1}
    assert painted.min() >= 0 and painted.max() <= 1
    changed = (painted != images).any(1, keepdim=True)
    grown = nn.functional.max_pool2d(mask, 5, 1, 2).bool()  # with the soft border
    assert not (changed & ~grown).any()
    assert changed[mask.bool()].float().mean() > 0.95


def test_some_images_stay_normal_and_blobs_are_small():
    images = torch.rand(200, 3, 32, 32, generator=seeded())
    painted, mask = invent(images, seeded(2))
    blank = mask.flatten(1).sum(1) == 0
    assert 0.1 < blank.float().mean() < 0.5
    assert torch.equal(painted[blank][:, :, 0, 0], images[blank][:, :, 0, 0])
    assert 0.002 < mask.mean() < 0.15


def test_a_random_number_for_each_image():
    numbers = anomaly_detection.uniform(torch.zeros(4000, 1, 1, 1), -2, 6, seeded())
    assert numbers.shape == (4000, 1, 1, 1)
    assert numbers.min() == pytest.approx(-2, abs=0.02)
    assert numbers.max() == pytest.approx(6, abs=0.02)
    assert numbers.mean() == pytest.approx(2, abs=0.2)


def blob_at(draws, row, column, height, width):
    """One pixel of a blob in plain arithmetic; `draws` are uniform from 0 to 1."""

    def draw(low, high):
        return low + (high - low) * next(draws)

    distance = 4 * 7.5 ** draw(0, 1)  # 4 to 30 m
    foot = 0.5 + 1.5 / distance
    half_width = min(max(draw(0.3, 2) / distance, 0.02), 0.2)
    half_height = min(max(draw(0.2, 1.2) / distance, 0.02), 0.2)
    y = (row + 0.5) / height - (foot - half_height * draw(0, 1))
    x = (column + 0.5) / width - draw(0.1, 0.9)
    tilt = draw(-0.3, 0.3)
    across = (x * math.cos(tilt) + y * math.sin(tilt)) / half_width
    down = (y * math.cos(tilt) - x * math.sin(tilt)) / half_height
    power = 2 ** draw(0, 3)
    radius = (abs(across) ** power + abs(down) ** power + 1e-6) ** (1 / power)
    outline = 1.0
    for waves in (2, 3, 5):
        height_of_wave, phase = draw(-0.25, 0.25), draw(0, 2 * math.pi)
        outline += height_of_wave * math.cos(waves * math.atan2(down, across) + phase)
    inside = (outline - radius) * min(half_width, half_height) * width + 0.5
    return min(max(inside, 0), 1), across, down


def test_blobs_are_what_is_written_out_here():
    count, height, width = 24, 16, 24
    numbers = torch.rand(13, count, generator=seeded(3))  # as `blob` draws them
    generator = seeded(3)
    found = blob(torch.zeros(count, 3, height, width), generator)
    assert torch.equal(torch.rand(1, generator=generator), later(seeded(3), 13 * count))
    expected = tensor(
        [
            [
                blob_at(iter(numbers[:, i].tolist()), row, column, height, width)
                for row in range(height)
                for column in range(width)
            ]
            for i in range(count)
        ]
    )  # [B, H*W, 3]
    for part, one in zip(found, expected.unbind(-1), strict=True):
        assert part.shape == (count, 1, height, width)
        torch.testing.assert_close(part.flatten(1), one, rtol=1e-4, atol=2e-3)
    assert ((found[0] > 0) & (found[0] < 1)).any()  # the edge is soft
    assert (found[0].flatten(1).sum(1) > 1).float().mean() > 0.8


def later(generator: torch.Generator, drawn: int) -> torch.Tensor:
    """The number that a generator gives after `drawn` others."""
    torch.rand(drawn, generator=generator)
    return torch.rand(1, generator=generator)


def test_nearest_and_farthest_blobs_have_sizes_of_things_on_a_road():
    """The limits of the page: 0.6 to 4 m wide, 0.4 to 2.4 m high, 4 to 30 m away."""
    assert (anomaly_detection.NEAREST, anomaly_detection.FARTHEST) == (4, 30)
    assert (anomaly_detection.BLOBS, anomaly_detection.BLOB_CHANCE) == (3, 0.4)
    shape, _, _ = blob(torch.zeros(400, 3, 64, 64), seeded())
    rows = shape.mean(dim=(0, 1, 3))
    assert rows[32:].sum() > 3 * rows[:32].sum()  # below the horizon


def textured(images, across, down, generator):
    """Textures image by image, from the same draws; the numbers of each name."""
    count, _, height, width = images.shape

    def draw(low=0.0, high=1.0):
        return low + (high - low) * torch.rand(count, generator=generator)

    def colour():
        grey, bright = (
            torch.rand(count, size, generator=generator).expand(-1, 3)
            for size in (1, 3)
        )
        return torch.where(draw()[:, None] < 0.4, grey, bright)

    angle, scale = draw(0, 2 * math.pi), 2 ** draw(-1.5, 0.5)
    shift = 2 * torch.rand(count, 2, generator=generator) - 1
    others = torch.randperm(count, generator=generator).tolist()
    waves = [draw(0, 6) for _ in range(6)]
    first, plain = colour(), draw() < 0.5
    second = colour()
    light_power, darkening, share = draw(), draw(0, 0.4), draw(-0.5, 1.5)
    noise = torch.randn(images.shape, generator=generator)
    results = []
    for i in range(count):
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) * 2 / height - 1,
            (torch.arange(width) + 0.5) * 2 / width - 1,
            indexing="ij",
        )
        cos, sin = scale[i] * angle[i].cos(), scale[i] * angle[i].sin()
        places = [cos * x - sin * y + shift[i, 0], sin * x + cos * y + shift[i, 1]]
        piece = grid_sample(
            images[others[i]][None],
            torch.stack(places, dim=-1)[None],
            padding_mode="reflection",
            align_corners=False,
        )[0]
        u, v = across[i, 0], down[i, 0]
        a, b, c, d, e, f = (wave[i] for wave in waves)
        pattern = torch.sin(a * u + b * v + c) * torch.sin(d * u - e * v + f)
        colours = first[i], first[i] if plain[i] else second[i]
        paint = torch.where(pattern > 0, *(each.view(3, 1, 1) for each in colours))
        paint = paint * (images[i].mean() / 0.45) ** light_power[i]
        paint = paint * (1 - darkening[i] * v.clamp(-1, 1))
        part = share[i].clamp(0, 1)
        results.append(part * paint + (1 - part) * piece + 0.02 * noise[i])
    kinds = {"paint": share >= 1, "piece": share <= 0, "one colour": plain}
    return torch.stack(results).clamp(0, 1), kinds


def test_textures_are_what_is_written_out_here():
    count = 60
    images = torch.rand(count, 3, 12, 16, generator=seeded(5))
    images *= torch.linspace(0.2, 1, count).view(-1, 1, 1, 1)  # from night to day
    _, across, down = blob(images, seeded(6))
    expected, kinds = textured(images, across, down, seeded(7))
    found = texture(images, across, down, seeded(7))
    assert found.min() == 0 and found.max() == 1
    wrong = (found - expected).abs() > 1e-4
    assert wrong.float().mean() < 1e-3  # a pattern's edge may fall on a pixel
    for kind, chosen in kinds.items():
        assert 0.1 < chosen.float().mean() < 0.7, kind


def test_blobs_are_painted_one_over_the_other(monkeypatch):
    """Three blobs of three fillings: chance, cover and mask of each image by hand."""
    images = torch.full((2, 3, 1, 4), 0.5)
    shapes = tensor([[1, 0.6, 0.4, 0], [0, 1, 0, 0], [0, 0, 1, 1.0]])
    fillings = (0.0, 1.0, 0.2)
    # For every blob: is it there (below 0.4), and how transparent, of both images.
    draws = [[0.39, 0.41], [0.0, 0.0], [0.1, 0.2], [1.0, 0.5], [0.5, 0.3], [0.9, 0.8]]

    class Script:
        numbers, blobs, textures = iter(draws), iter(shapes), iter(fillings)

    def give(images, low, high, generator):
        assert (low, high) == (0, 1)
        return tensor(next(Script.numbers)).view(2, 1, 1, 1)

    def shape(images, generator):
        form = next(Script.blobs).expand(2, 1, 1, 4)
        return form, form + 10, form + 20

    def fill(given, across, down, generator):
        assert given is images  # not what is painted already
        assert torch.equal(across + 10, down)
        return torch.full_like(images, next(Script.textures))

    monkeypatch.setattr(anomaly_detection, "uniform", give)
    monkeypatch.setattr(anomaly_detection, "blob", shape)
    monkeypatch.setattr(anomaly_detection, "texture", fill)
    painted, mask = invent(images, seeded())
    # First image: blobs one and two; the second is half transparent, 1 - 0.5 * 1.
    # Second image: blobs two, 1 - 0.5 / 8, and three, 1 - 0.5 * 0.512.
    expected = tensor(
        [
            [0, 0.5 * 0.4 * 0.5 + 0.5, 0.5 * 0.6, 0.5],
            [0.5, 0.5 * 0.0625 + 0.9375, 0.5 * 0.256 + 0.2 * 0.744, 0],
        ]
    )
    expected[1, 3] = expected[1, 2]
    torch.testing.assert_close(painted, expected[:, None, None].expand(2, 3, 1, 4))
    assert mask.flatten(1).tolist() == [[1, 1, 0, 0], [0, 1, 1, 1]]


def test_training_invents_and_testing_does_not(normal, mixed):
    images, (mask,) = TASK.prepare(mixed).inputs[0], TASK.prepare(mixed).targets
    assert torch.equal(images, mixed.images.float() / 255)
    assert torch.equal(mask.bool()[:, 0], mixed.anomaly)
    example = TASK.prepare(normal, seeded())
    assert example.targets[0].sum() > 0
    again = TASK.prepare(normal, seeded())
    assert torch.equal(example.inputs[0], again.inputs[0])
    other = TASK.prepare(normal, seeded(1))
    assert not torch.equal(example.inputs[0], other.inputs[0])


def test_mirrored_images_get_anomalies(normal, monkeypatch):
    """First a half is mirrored, then the same generator invents."""
    monkeypatch.setattr(
        anomaly_detection,
        "invent",
        lambda images, generator: (images, torch.rand(3, generator=generator)),
    )
    many = normal[[0, 1] * 30]
    example = TASK.prepare(many, seeded())
    (images,), (mask,) = example.inputs, example.targets
    generator = seeded()
    flip = torch.rand(60, generator=generator) < 0.5
    plain = many.images.float() / 255
    assert torch.equal(images[flip], plain[flip].flip(-1))
    assert torch.equal(images[~flip], plain[~flip])
    assert torch.equal(mask, torch.rand(3, generator=generator))


def test_only_normal_scenes_are_learned_from(normal, mixed):
    assert TASK.training_scenes(normal) is normal
    kept = TASK.training_scenes(mixed)
    assert len(kept) == (~mixed.anomaly.flatten(1).any(1)).sum()
    assert not kept.anomaly.any()


# --- the loss, and learning ---


def test_loss_by_hand():
    """The mean over pixels of -log p where painted, -log(1 - p) elsewhere."""
    logits = 9 * torch.randn(2, 1, 5, 6, generator=seeded(), dtype=torch.float64)
    mask = (torch.rand(2, 1, 5, 6, generator=seeded(1)) < 0.2).double()
    expected = torch.where(mask == 1, softplus(-logits), softplus(logits)).sum() / 60
    torch.testing.assert_close(TASK.loss(logits, (mask,)), expected)
    assert TASK.loss(40 * mask - 20, (mask,)).item() == pytest.approx(0, abs=1e-8)


def test_a_few_steps_on_few_scenes_lower_the_loss(overfit, normal):
    torch.manual_seed(0)
    model = TASK.build_model().train()
    example = TASK.prepare(normal, seeded())
    losses = overfit(TASK, model, example, steps=10, learning_rate=2e-3)
    assert losses[-1] < 0.7 * losses[0]


def test_figure(normal):
    """Of ten anomalies the second, fifth and seventh in size; then a normal scene."""
    scenes = normal[[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]]
    anomaly = torch.zeros(12, 64, 64, dtype=torch.bool)
    order = [3, 7, 0, 11, 5, 2, 9, 1, 10, 6]  # from large to small; 4 and 8 have none
    for size, index in enumerate(reversed(order)):
        anomaly[index, : 5 * size + 3, :20] = True
    images = torch.full_like(scenes.images, 60)
    images[:, 0] += 11 * torch.arange(12, dtype=torch.uint8).view(-1, 1, 1)
    figure = TASK.figure(Reddish(), replace(scenes, images=images, anomaly=anomaly))
    titles = [axis.get_title() for axis in figure.axes[:3]]
    assert titles == ["image", "truth", "anomaly map"]
    shown = [order[1], order[4], order[6], 4]
    assert len(figure.axes) == 3 * len(shown)
    for row, index in enumerate(shown):
        image, truth, found = figure.axes[3 * row : 3 * row + 3]
        assert image.images[0].get_array()[0, 0, 0] == images[index, 0, 0, 0]
        assert (truth.images[0].get_array() == anomaly[index].numpy()).all()
        odds = 1 + 11 * index / 255  # exp(log1p(red - green))
        score = odds / (1 + odds)
        assert abs(found.images[0].get_array() - score).max() < 1e-6
        assert found.get_xlabel() == f"score {score:.2f}"
        assert {axis.images[0].get_clim() for axis in (truth, found)} == {(0, 1)}
    plt.close(figure)
