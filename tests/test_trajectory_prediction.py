"""Futures of tracks: shapes, symmetry, metrics and loss by hand, what is refused."""

import math

import pytest
import torch
from torch import tensor

from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import FUTURE_STEPS, PAST_STEPS
from src.vision_tasks.tasks.trajectory_prediction import (
    Futures,
    TrajectoryPrediction,
    TrajectoryPredictor,
    constant_velocity,
    min_ade,
    min_fde,
    miss_rate,
    to_heading,
)

TASK = TrajectoryPrediction()


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(12, seed=3, size=32)


@pytest.fixture
def model() -> TrajectoryPredictor:
    torch.manual_seed(0)
    return TrajectoryPredictor().eval()


def driving(tracks: int = 5, steps: int = PAST_STEPS) -> torch.Tensor:
    """Tracks that move, each in its own direction, with some noise."""
    generator = torch.Generator().manual_seed(1)
    velocity = torch.randn(tracks, 1, 2, generator=generator) + tensor([1.0, 3.0])
    noise = 0.1 * torch.randn(tracks, steps, 2, generator=generator)
    return torch.arange(steps).view(1, -1, 1) * velocity + noise


# --- the model ---


@pytest.mark.parametrize("steps", [2, 3, PAST_STEPS, 20])
def test_any_number_of_past_steps(model, steps):
    futures, logits = model(driving(5, steps))
    assert futures.shape == (5, 6, FUTURE_STEPS, 2)
    assert logits.shape == (5, 6)
    assert futures.isfinite().all() and logits.isfinite().all()


def test_modes_and_steps_can_be_chosen():
    output = TrajectoryPredictor(modes=3, steps=7)(driving(4))
    assert output.futures.shape == (4, 3, 7, 2)
    assert output.logits.shape == (4, 3)


def test_example_inputs_fit_the_model(model):
    (tracks,) = TASK.example_inputs(3)
    assert tracks.shape == (3, PAST_STEPS, 2)
    assert TASK.build_model()(tracks).futures.shape == (3, 6, FUTURE_STEPS, 2)


def test_a_shifted_and_turned_track_has_its_futures_shifted_and_turned(model):
    tracks = driving()
    angle = 2.1
    turn = tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    )
    shift = tensor([30.0, -7.0])
    before, after = model(tracks), model(tracks @ turn + shift)
    assert torch.allclose(after.futures, before.futures @ turn + shift, atol=1e-3)
    assert torch.allclose(after.logits, before.logits, atol=1e-4)
    mirrored = model(tracks * tensor([-1.0, 1.0]))  # traffic has a side: not alike
    assert not torch.allclose(mirrored.logits, before.logits, atol=1e-4)


def test_the_own_frame_has_ahead_as_its_second_axis():
    to_the_right = tensor([[[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]])
    own = (to_the_right - to_the_right[:, -1:]) @ to_heading(to_the_right)
    assert torch.allclose(own[0], tensor([[0.0, -2.0], [0.0, -1.0], [0.0, 0.0]]))
    standing = torch.zeros(1, 4, 2) + 0.01 * torch.rand(1, 4, 2)
    assert torch.equal(to_heading(standing)[0], torch.eye(2))


@pytest.mark.parametrize(
    ("tracks", "why"),
    [
        (torch.zeros(0, 8, 2), "no tracks"),
        (torch.zeros(3, 0, 2), "0 steps shows no motion"),
        (torch.zeros(3, 1, 2), "1 steps shows no motion"),
        (torch.zeros(3, 8, 3), r"expected tracks \[B, T0, 2\], got \[3, 8, 3\]"),
        (torch.zeros(8, 2), r"got \[8, 2\]"),
        (torch.full((1, 8, 2), math.nan), "nan or inf"),
    ],
)
def test_wrong_tracks_are_refused(model, tracks, why):
    with pytest.raises(ValueError, match=why):
        model(tracks)


# --- baseline and metrics ---


def test_constant_velocity_by_hand():
    track = tensor([[[9.0, 9.0], [0.0, 1.0], [1.0, 3.0]]])
    future = constant_velocity(track, 3)
    assert torch.equal(future, tensor([[[2.0, 5.0], [3.0, 7.0], [4.0, 9.0]]]))
    with pytest.raises(ValueError, match="no tracks"):
        constant_velocity(torch.zeros(0, 8, 2))


def test_metrics_by_hand():
    truth = torch.zeros(2, 2, 2)  # both stay at the origin
    futures = tensor(
        [
            [[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]],  # ADE 2.5, 1
            [[[0.0, 2.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 7.0]]],  # ADE 3, 3.5
        ]
    )
    assert min_ade(futures, truth) == pytest.approx((1 + 3) / 2)
    # The best end may belong to another future than the best average.
    assert min_fde(futures, truth) == pytest.approx((0 + 4) / 2)
    assert miss_rate(futures, truth) == pytest.approx(1 / 2)
    assert miss_rate(torch.full((1, 1, 2, 2), 2 / math.sqrt(2)), truth[:1]) == 0
    assert min_ade(futures[:, :1], truth) == pytest.approx((2.5 + 3) / 2)


def test_baseline_of_straight_tracks_is_nothing(scenes):
    (past,), (truth,) = (example := TASK.prepare(scenes)).inputs, example.targets
    straight = constant_velocity(past).unsqueeze(1)
    expected = (straight[:, 0] - truth).pow(2).sum(2).sqrt().mean().item()
    assert TASK.baseline(scenes, scenes) == pytest.approx(expected, rel=1e-5)
    assert min_ade(straight, constant_velocity(past)) == 0


def test_measure_tells_the_best_from_the_most_probable(scenes):
    (truth,) = TASK.prepare(scenes).targets

    class Fixed(torch.nn.Module):
        """Of two futures the true one, and one 5 m off that it believes in."""

        def forward(self, tracks):
            futures = torch.stack([truth, truth + tensor([3.0, 4.0])], dim=1)
            return Futures(futures, tensor([[0.0, 1.0]]).expand(len(truth), 2))

    measured = TASK.measure(Fixed(), scenes)
    assert measured[TASK.metric] == 0
    assert measured["miss rate of 6 futures"] == 0
    single = measured["ADE of the most probable future (K = 1, m)"]
    assert single == pytest.approx(5, rel=1e-4)


# --- the loss ---


def test_loss_by_hand():
    truth = torch.zeros(1, 2, 2)
    futures = tensor([[[[3.0, 4.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 3.0]]]])
    logits = tensor([[0.0, 0.0]])
    # The second is nearest, 2 m on average, and has a probability of one half.
    loss = TASK.loss(Futures(futures, logits), (truth,))
    assert loss.item() == pytest.approx(2 + math.log(2))


def test_only_the_nearest_future_is_moved():
    futures = torch.randn(4, 6, 12, 2, requires_grad=True)
    truth = torch.randn(4, 12, 2)
    TASK.loss(Futures(futures, torch.zeros(4, 6)), (truth,)).backward()
    moved = futures.grad.abs().sum((2, 3)) > 0
    nearest = (futures - truth.unsqueeze(1)).norm(dim=-1).mean(2).argmin(1)
    assert torch.equal(moved, torch.nn.functional.one_hot(nearest, 6).bool())


def test_loss_falls_to_nothing_at_a_sure_and_true_future():
    truth, wrong = torch.randn(4, 12, 2), torch.randn(4, 3, 12, 2) + 3

    def loss(part: float) -> float:
        first = truth.unsqueeze(1) * part + wrong[:, :1] * (1 - part)
        logits = tensor([[20.0 * part, 0.0, 0.0]]).expand(4, 3)
        futures = torch.cat([first, wrong[:, 1:] + 9], dim=1)
        return TASK.loss(Futures(futures, logits), (truth,)).item()

    losses = [loss(part) for part in (0, 0.5, 0.9, 1)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == pytest.approx(0, abs=1e-6)


# --- the targets, and learning ---


def test_tracks_of_all_labelled_objects_in_order(scenes):
    (past,), (future,) = (example := TASK.prepare(scenes)).inputs, example.targets
    rows = [
        (scenes.past[n, m], scenes.future[n, m])
        for n in range(len(scenes))
        for m in range(scenes.labels.shape[1])
        if scenes.labels[n, m] >= 0
    ]
    assert torch.equal(past, torch.stack([row[0] for row in rows]))
    assert torch.equal(future, torch.stack([row[1] for row in rows]))


def test_training_also_sees_short_tracks(scenes):
    lengths = set()
    for seed in range(40):
        example = TASK.prepare(scenes, torch.Generator().manual_seed(seed))
        (past,), (future,) = example.inputs, example.targets
        lengths.add(past.shape[1])
        assert torch.equal(past, TASK.prepare(scenes).inputs[0][:, -past.shape[1] :])
        assert len(past) == len(future)
    assert min(lengths) >= 2 and max(lengths) == PAST_STEPS
    assert len(lengths) > 2


def test_a_few_steps_on_few_tracks_beat_constant_velocity(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    example = TASK.prepare(scenes)
    losses = overfit(TASK, model, example, steps=60, learning_rate=3e-3)
    assert losses[-1] < 0.6 * losses[0]
    measured = TASK.measure(model.eval(), scenes)[TASK.metric]
    assert measured < 0.6 * TASK.baseline(scenes, scenes)


def test_figure(model, scenes):
    figure = TASK.figure(model, scenes)
    drawn = [axis for axis in figure.axes if axis.lines]
    assert len(drawn) >= 4
    assert all(len(axis.lines) == 8 for axis in drawn)  # 6 futures, truth, past
