"""Anomaly maps: AUROC by hand, invented anomalies, the loss, the baseline."""

from dataclasses import replace

import pytest
import torch
from torch import nn, tensor

from src.vision_tasks.street.scenes import Scenes, make_scenes
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


@pytest.mark.parametrize(("height", "width"), [(224, 224), (64, 96)])
def test_shapes(height, width):
    model = AnomalyDetector().eval()
    assert model(torch.rand(2, 3, height, width)).shape == (2, 1, height, width)


def test_example_inputs_fit_the_model():
    assert TASK.build_model()(*TASK.example_inputs(2)).shape == (2, 1, 224, 224)


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


def test_auroc_is_the_share_of_pairs_in_order():
    scores = torch.randint(0, 10, (60,), generator=seeded()).float()
    positive = torch.rand(60, generator=seeded(1)) < 0.3
    one, other = scores[positive][:, None], scores[~positive][None]
    share = ((one > other).double() + 0.5 * (one == other).double()).mean().item()
    assert auroc(scores, positive) == pytest.approx(share, abs=1e-12)
    assert auroc(3 * scores - 50, positive) == pytest.approx(share)  # ranks only
    assert auroc(-scores, positive) == pytest.approx(1 - share)


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
    maps[0, 0, 3, 4], maps[0, 0, 9, 9] = 4.0, 2.0
    maps[1] = -5
    assert image_scores(maps).tolist() == [3, -5]
    assert image_scores(torch.ones(1, 1, 4, 4)).tolist() == [1]


def test_evaluate_a_map_that_is_the_truth(mixed):
    truth = mixed.anomaly.unsqueeze(1).float()
    assert evaluate(truth, mixed) == {"image AUROC": 1, "pixel AUROC": 1}
    assert evaluate(-truth, mixed)["pixel AUROC"] == 0
    flat = evaluate(torch.zeros_like(truth), mixed)
    assert flat == {"image AUROC": 0.5, "pixel AUROC": 0.5}


class Knows(nn.Module):
    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return self.maps


def test_measure(mixed):
    maps = 8 * mixed.anomaly.unsqueeze(1).float() - 4
    assert TASK.measure(Knows(maps), mixed)[TASK.metric] == 1


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


def test_blobs_differ_and_keep_to_the_lower_half():
    shape, across, down = blob(torch.zeros(50, 3, 64, 64), seeded())
    assert shape.shape == across.shape == down.shape == (50, 1, 64, 64)
    assert len({tuple(one.flatten().tolist()) for one in shape}) == 50
    rows = shape.mean(dim=(0, 1, 3))
    assert rows[32:].sum() > 3 * rows[:32].sum()
    inside = shape == 1
    assert across[inside].abs().max() < 2 and down[inside].abs().max() < 2


def test_textures_are_darker_in_the_dark():
    day = torch.full((40, 3, 32, 32), 0.6)
    ones = torch.zeros(40, 1, 32, 32)
    by_day = texture(day, ones, ones, seeded()).mean()
    by_night = texture(day / 6, ones, ones, seeded()).mean()
    assert by_night < 0.8 * by_day


def test_training_invents_and_testing_does_not(normal, mixed):
    images, (mask,) = TASK.prepare(mixed).inputs[0], TASK.prepare(mixed).targets
    assert torch.equal((images * 255).round().byte(), mixed.images)
    assert torch.equal(mask.bool()[:, 0], mixed.anomaly)
    example = TASK.prepare(normal, seeded())
    assert example.targets[0].sum() > 0
    again = TASK.prepare(normal, seeded())
    assert torch.equal(example.inputs[0], again.inputs[0])
    other = TASK.prepare(normal, seeded(1))
    assert not torch.equal(example.inputs[0], other.inputs[0])


def test_only_normal_scenes_are_learned_from(normal, mixed):
    assert TASK.training_scenes(normal) is normal
    kept = TASK.training_scenes(mixed)
    assert 0 < len(kept) < len(mixed)
    assert not kept.anomaly.any()


# --- the loss, and learning ---


def test_loss_falls_to_nothing_at_the_truth(mixed):
    truth = mixed.anomaly.unsqueeze(1).float()
    wrong = 3 * torch.randn(truth.shape, generator=seeded())
    right = 40 * truth - 20
    losses = [
        TASK.loss(wrong * (1 - part) + right * part, (truth,)).item()
        for part in (0, 0.3, 0.6, 1)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-6)


def test_a_few_steps_on_few_scenes_lower_the_loss(overfit, normal):
    torch.manual_seed(0)
    model = TASK.build_model().train()
    example = TASK.prepare(normal, seeded())
    losses = overfit(TASK, model, example, steps=10, learning_rate=2e-3)
    assert losses[-1] < 0.7 * losses[0]


def test_figure(mixed):
    figure = TASK.figure(AnomalyDetector().eval(), mixed)
    maps = [axis.images[0].get_array() for axis in figure.axes]
    assert len(maps) == 4 * 3
    truths = [truth.sum() for truth in maps[1::3]]
    assert truths == sorted(truths, reverse=True)  # from large to none
    assert truths[2] > 0 and truths[3] == 0
