"""Futures of tracks: model, loss and metrics against plain re-computations."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from torch import Generator, Tensor, nn, tensor

from src.plots import BLUE, ORANGE
from src.vision_tasks.shared.task import TaskRecipe
from src.vision_tasks.street.scenes import Scenes, make_scenes
from src.vision_tasks.street.vocabulary import PAST_STEPS
from src.vision_tasks.tasks.trajectory_prediction import (
    Futures,
    TrajectoryPrediction,
    TrajectoryPredictor,
    constant_velocity,
    displacements,
    min_ade,
    min_fde,
    miss_rate,
    show_track,
    to_heading,
)

TASK = TrajectoryPrediction()
PAGE = Path(__file__).parent.parent / "answers/vision_tasks/trajectory_prediction.md"
ADE, FDE = "minADE of 6 futures (m)", "minFDE of 6 futures (m)"
MISSES = "miss rate of 6 futures"
SINGLE_ADE = "ADE of the most probable future (K = 1, m)"
SINGLE_FDE = "FDE of the most probable future (K = 1, m)"


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(12, seed=3, size=32)


@pytest.fixture
def model() -> TrajectoryPredictor:
    torch.manual_seed(0)
    return TrajectoryPredictor().double().eval().requires_grad_(False)


def driving(tracks: int = 5, steps: int = 8) -> Tensor:
    """Tracks that move, each in its own direction, with some noise."""
    generator = Generator().manual_seed(1)
    velocity = torch.randn(tracks, 1, 2, generator=generator) + tensor([1.0, 3.0])
    noise = 0.1 * torch.randn(tracks, steps, 2, generator=generator)
    return (torch.arange(steps).view(1, -1, 1) * velocity + noise).double()


# --- the model ---


def plain_gru(weights: nn.GRU, seen: list[Tensor]) -> Tensor:
    """The last state of a GRU that reads vectors [4] one after the other."""
    state = torch.zeros(128).double()
    for step in seen:
        new = weights.weight_ih_l0 @ step + weights.bias_ih_l0
        old = weights.weight_hh_l0 @ state + weights.bias_hh_l0
        (r, z, n), (r_old, z_old, n_old) = new.view(3, 128), old.view(3, 128)
        reset, keep = (r + r_old).sigmoid(), (z + z_old).sigmoid()
        state = keep * state + (1 - keep) * (n + reset * n_old).tanh()
    return state


def plain_futures(
    model: TrajectoryPredictor, track: Tensor, modes: int, steps: int
) -> Futures:
    """Of one track [T0, 2], in complex numbers: a turn is a multiplication."""
    places = torch.complex(track[:, 0], track[:, 1])
    moved = places[-1] - places[max(len(places) - 3, 0)]
    # ahead, (0, 1) or i in the own frame, is this direction in the camera's
    heading = moved / moved.abs() if moved.abs() > 0.3 else tensor(1j)
    own = (places - places[-1]) * 1j / heading
    seen = [
        torch.stack([step.real / 2, step.imag / 2, place.real / 10, place.imag / 10])
        for step, place in zip(own[1:] - own[:-1], own[:-1], strict=True)
    ]
    x = plain_gru(model.read, seen)
    for layer in model.write[0], model.write[2]:
        x = (layer.weight @ x + layer.bias).clamp(min=0)
    x = model.write[4].weight @ x + model.write[4].bias
    futures = []
    for mode in x[: modes * steps * 2].view(modes, steps, 2):
        place, future = places[-1], []
        for right, ahead in mode:
            change = 2 * torch.complex(right, ahead) * heading / 1j
            place = place + (places[-1] - places[-2]) + change
            future.append(torch.stack([place.real, place.imag]))
        futures.append(torch.stack(future))
    return Futures(torch.stack(futures), x[modes * steps * 2 :])


@pytest.mark.parametrize("steps", [2, 3, 8, 20])
def test_forward_is_each_track_followed_step_by_step(model, steps):
    tracks = driving(4, steps)
    tracks[0] /= 100  # one stands
    output = model(tracks)
    expected = [plain_futures(model, track, 6, 12) for track in tracks]
    assert output.futures.shape == (4, 6, 12, 2) and output.logits.shape == (4, 6)
    for name in Futures._fields:
        torch.testing.assert_close(
            getattr(output, name),
            torch.stack([getattr(one, name) for one in expected]),
            rtol=1e-9,
            atol=1e-9,
        )


def test_modes_and_steps_can_be_chosen():
    model = TrajectoryPredictor(modes=3, steps=7).double().requires_grad_(False)
    tracks = driving(1)
    output, expected = model(tracks), plain_futures(model, tracks[0], 3, 7)
    assert output.futures.shape == (1, 3, 7, 2)
    torch.testing.assert_close(output.futures[0], expected.futures)
    torch.testing.assert_close(output.logits[0], expected.logits)
    assert TrajectoryPredictor(width=16).write[4].in_features == 32


def test_without_what_is_written_a_track_goes_on_and_what_is_written_adds_up(model):
    tracks = driving()
    nn.init.zeros_(model.write[4].weight)
    nn.init.zeros_(model.write[4].bias)
    straight = constant_velocity(tracks, 12).unsqueeze(1)
    assert torch.equal(model(tracks).futures, straight.expand(-1, 6, -1, -1))
    model.write[4].bias[1 : 6 * 12 * 2 : 2] = 0.25  # half a metre ahead, each step
    added = (model(tracks).futures - straight).norm(dim=-1)  # [5, 6, 12]
    expected = 0.5 * torch.arange(1, 13).double()
    torch.testing.assert_close(added, expected.expand(5, 6, -1))


def test_every_part_of_the_past_is_read(model):
    """Two tracks that end alike differ before, and so do their futures."""
    tracks = driving(1)
    whole = model(tracks)
    for step in range(8):
        other = tracks.clone()
        other[0, step] += 0.5
        assert (model(other).logits - whole.logits).abs().max() > 1e-5, step


def test_a_shifted_and_turned_track_has_its_futures_shifted_and_turned(model):
    tracks, angle = driving(), 2.1
    turn = tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]],
        dtype=torch.float64,
    )
    shift = tensor([30.0, -7.0])
    before, after = model(tracks), model(tracks @ turn + shift)
    assert torch.allclose(after.futures, before.futures @ turn + shift, atol=1e-9)
    assert torch.allclose(after.logits, before.logits, atol=1e-9)
    mirrored = model(tracks * tensor([-1.0, 1.0]))  # traffic has a side: not alike
    assert not torch.allclose(mirrored.logits, before.logits, atol=1e-4)


def test_the_own_frame_has_ahead_as_its_second_axis():
    to_the_right = tensor([[[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]])
    own = (to_the_right - to_the_right[:, -1:]) @ to_heading(to_the_right)
    assert torch.allclose(own[0], tensor([[0.0, -2.0], [0.0, -1.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("track", "ahead"),
    [
        ([(9, 9), (0, 0), (0.1, 0), (0.29, 0)], (0, 1)),  # stands: along Z
        ([(9, 9), (0, 0), (0, 9), (0.31, 0)], (1, 0)),  # from the last but two
        ([(0, 0), (0, -0.31)], (0, -1)),
        ([(0, 0), (3, 4)], (0.6, 0.8)),
    ],
)
def test_the_heading_is_that_of_the_last_two_steps_if_they_moved(track, ahead):
    right = (ahead[1], -ahead[0])
    expected = tensor([right, ahead], dtype=torch.float64).T
    turn = to_heading(tensor([track], dtype=torch.float64))[0]
    torch.testing.assert_close(turn, expected)


@pytest.mark.parametrize(
    ("tracks", "why"),
    [
        (torch.zeros(0, 8, 2), "no tracks"),
        (torch.zeros(3, 0, 2), "0 steps shows no motion"),
        (torch.zeros(3, 1, 2), "1 steps shows no motion"),
        (torch.zeros(3, 8, 3), r"expected tracks \[B, T0, 2\], got \[3, 8, 3\]"),
        (torch.zeros(8, 2), r"got \[8, 2\]"),
        (torch.zeros(2, 8, 2).index_fill(1, tensor(3), math.nan), "nan or inf"),
        (torch.zeros(2, 8, 2).index_fill(2, tensor(1), -math.inf), "nan or inf"),
    ],
)
def test_wrong_tracks_are_refused(tracks, why):
    for function in (TrajectoryPredictor(), constant_velocity):
        with pytest.raises(ValueError, match=why):
            function(tracks)


def test_the_tasks_model_and_its_example_inputs():
    for batch, (tracks,) in ((2, TASK.example_inputs()), (3, TASK.example_inputs(3))):
        assert tracks.shape == (batch, 8, 2)
        output = TASK.build_model()(tracks)
        assert output.futures.shape == (batch, 6, 12, 2)
    torch.manual_seed(0)
    (tracks,) = TASK.example_inputs(100)
    assert tracks[:, -1].std() > 2 * tracks[:, 0].std()  # they go somewhere
    TASK.build_model(pretrained=True)  # there is nothing to load, and no complaint


# --- metrics and baseline ---


def test_constant_velocity_by_hand():
    track = tensor([[[9.0, 9.0], [0.0, 1.0], [1.0, 3.0]]])
    future = constant_velocity(track, 3)
    assert torch.equal(future, tensor([[[2.0, 5.0], [3.0, 7.0], [4.0, 9.0]]]))
    assert constant_velocity(track).shape == (1, 12, 2)


def test_metrics_by_hand():
    truth = torch.zeros(2, 2, 2)  # both stay at the origin
    futures = tensor(
        [
            [[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]],  # ADE 2.5, 1
            [[[0.0, 2.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 7.0]]],  # ADE 3, 3.5
        ]
    )
    distances = displacements(futures, truth)
    assert distances.tolist() == [[[5, 0], [1, 1]], [[2, 4], [0, 7]]]
    assert min_ade(futures, truth) == pytest.approx((1 + 3) / 2)
    # The best end may belong to another future than the best average.
    assert min_fde(futures, truth) == pytest.approx((0 + 4) / 2)
    assert miss_rate(futures, truth) == pytest.approx(1 / 2)
    assert min_ade(futures[:, :1], truth) == pytest.approx((2.5 + 3) / 2)
    assert min_ade(futures + 9, truth + 9) == pytest.approx((1 + 3) / 2)


@pytest.mark.parametrize(("away", "missed"), [(1.99, 0), (2, 0), (2.01, 1)])
def test_an_end_just_2_m_away_is_no_miss(away, missed):
    futures = tensor([[[[9.0, 9.0], [0.0, away]], [[0.0, 0.0], [0.0, 5.0]]]])
    assert miss_rate(futures, torch.zeros(1, 2, 2)) == missed


class Told(nn.Module):
    """Gives the futures that it was made with."""

    def __init__(self, futures: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.output = Futures(futures, logits)

    def forward(self, tracks):
        return self.output


def test_measure_tells_the_best_from_the_most_probable(scenes):
    (truth,) = TASK.prepare(scenes).targets
    away = tensor([[3.0, 4.0]]).expand(12, 2) * torch.arange(12).view(12, 1) / 11
    logits = tensor([[0.0, 1.0, -1.0]]).expand(len(truth), 3)

    def measure(*offsets: Tensor) -> dict[str, float]:
        futures = torch.stack([truth + each for each in offsets], dim=1)
        return TASK.measure(Told(futures, logits), scenes)

    exact = torch.zeros(12, 2)
    right = {ADE: 0, FDE: 0, MISSES: 0}
    single = {
        SINGLE_ADE: pytest.approx(2.5, rel=1e-4),
        SINGLE_FDE: pytest.approx(5, rel=1e-4),
    }
    assert measure(exact, away, away + 9) == right | single
    assert measure(away, exact, away) == right | {SINGLE_ADE: 0, SINGLE_FDE: 0}
    assert measure(away + 9, away, away + 9) == single | {
        ADE: single[SINGLE_ADE],
        FDE: single[SINGLE_FDE],
        MISSES: 1,
    }


def test_measure_takes_each_tracks_own_most_probable_future(scenes):
    (truth,) = TASK.prepare(scenes).targets
    futures = torch.stack([truth, truth + tensor([3.0, 4.0])], dim=1)
    wrong = torch.arange(len(truth)) % 3 == 0
    logits = torch.stack([~wrong, wrong], dim=1).float()
    measured = TASK.measure(Told(futures, logits), scenes)
    share = wrong.float().mean().item()
    assert measured[SINGLE_ADE] == pytest.approx(5 * share, rel=1e-4)


def test_baseline_is_one_future_that_goes_straight_on(scenes):
    (past,), (truth,) = (batch := TASK.prepare(scenes)).inputs, batch.targets
    steps = torch.arange(1, 13).view(1, 12, 1)
    straight = past[:, 7:] + steps * (past[:, 7:] - past[:, 6:7])
    distances = (straight - truth).square().sum(2).sqrt()
    ade = pytest.approx(distances.mean().item(), rel=1e-5)
    fde = pytest.approx(distances[:, 11].mean().item(), rel=1e-5)
    assert TASK.baselines(scenes[:1], scenes) == {
        "constant velocity": {
            ADE: ade,
            FDE: fde,
            MISSES: pytest.approx((distances[:, 11] > 2).float().mean().item()),
            SINGLE_ADE: ade,
            SINGLE_FDE: fde,
        }
    }


# --- the loss ---


def test_loss_by_hand():
    truth = torch.zeros(1, 2, 2)
    futures = tensor([[[[3.0, 4.0], [3.0, 4.0]], [[0.0, 1.0], [0.0, 3.0]]]])
    logits = tensor([[0.0, math.log(3)]])
    # The second is nearest, 2 m on average, and has a probability of three quarters.
    loss = TASK.loss(Futures(futures, logits), (truth,))
    assert loss.item() == pytest.approx(2 + math.log(4 / 3))


def test_loss_is_the_nearest_futures_distance_and_minus_log_its_probability():
    generator = Generator().manual_seed(0)
    futures = torch.randn(5, 6, 12, 2, generator=generator).double()
    truth = torch.randn(5, 12, 2, generator=generator).double()
    logits = torch.randn(5, 6, generator=generator).double()
    costs = []
    for offered, true, scores in zip(futures, truth, logits, strict=True):
        away = [
            math.fsum(map(math.dist, one.tolist(), true.tolist())) for one in offered
        ]
        nearest = min(range(6), key=away.__getitem__)
        probability = scores[nearest].exp() / scores.exp().sum()
        costs.append(away[nearest] / 12 - math.log(probability))
    loss = TASK.loss(Futures(futures, logits), (truth,))
    assert loss.item() == pytest.approx(sum(costs) / 5, rel=1e-12)


def test_only_the_nearest_future_is_moved():
    futures = torch.randn(4, 6, 12, 2, requires_grad=True)
    truth = torch.randn(4, 12, 2)
    TASK.loss(Futures(futures, torch.zeros(4, 6)), (truth,)).backward()
    moved = futures.grad.abs().sum((2, 3)) > 0
    nearest = (futures - truth.unsqueeze(1)).norm(dim=-1).mean(2).argmin(1)
    assert torch.equal(moved, nn.functional.one_hot(nearest, 6).bool())


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


# --- the batch, and learning ---


def test_tracks_of_all_labelled_objects_in_order_without_padding(scenes):
    (past,), (future,) = (batch := TASK.prepare(scenes)).inputs, batch.targets
    rows = [
        (scenes.past[n, m], scenes.future[n, m])
        for n in range(len(scenes))
        for m in range(scenes.labels.shape[1])
        if scenes.labels[n, m] >= 0
    ]
    assert len(rows) < scenes.labels.numel() and (scenes.labels == 0).any()
    assert torch.equal(past, torch.stack([row[0] for row in rows]))
    assert torch.equal(future, torch.stack([row[1] for row in rows]))


def test_a_quarter_of_the_trainings_batches_sees_only_the_last_steps(scenes):
    (whole,), (truth,) = (batch := TASK.prepare(scenes)).inputs, batch.targets
    lengths = []
    for seed in range(200):
        generator, same = Generator().manual_seed(seed), Generator().manual_seed(seed)
        batch = TASK.prepare(scenes, generator)
        short = torch.rand((), generator=same) < 0.25
        length = 8 - torch.randint(1, 7, (), generator=same).item() if short else 8
        assert torch.equal(batch.inputs[0], whole[:, -length:])
        assert torch.equal(batch.targets[0], truth)
        lengths.append(length)
    assert set(lengths) == set(range(2, PAST_STEPS + 1))


def test_learns_to_beat_constant_velocity(overfit, scenes):
    torch.manual_seed(0)
    model = TASK.build_model()
    batch = TASK.prepare(scenes)
    losses = overfit(TASK, model, batch, steps=60, learning_rate=3e-3)
    assert losses[-1] < 0.6 * losses[0]
    measured = TASK.measure(model.eval(), scenes)[TASK.metric]
    assert measured < 0.6 * TASK.baseline(scenes, scenes)


# --- the figure ---


def test_figure_shows_one_of_each_class_first_of_those_that_move(scenes):
    labels = torch.full((2, 8), -1)
    labels[0, :6] = tensor([2, 0, 0, 1, 0, 3])
    labels[1, :3] = tensor([0, 1, 3])
    past, future = torch.zeros(2, 8, 8, 2), torch.zeros(2, 8, 12, 2)
    goes = torch.arange(16).view(2, 8) + 20.0  # each its own distance ahead
    goes[0, 1] = 4.0  # stays too near: not shown
    goes[0, 2] = 4.01
    past[..., 0] = 50.0
    future[..., 0] = 50.0
    future[..., 1] = goes.unsqueeze(2) * torch.linspace(0.1, 1, 12)
    past[0, 3, 0, 1] = 23.0  # this one has gone and come back: stays near
    scenes = replace(scenes[:2], labels=labels, past=past, future=future)
    (truth,) = TASK.prepare(scenes).targets
    assert len(truth) == 9
    logits = torch.ones(9, 2)
    logits[:, 1] += torch.arange(9) / 3
    futures = torch.stack([truth + 1, truth - 1], dim=1)
    figure = TASK.figure(Told(futures, logits), scenes)
    # The first car, truck, bus and pedestrian that moves, then the second of each.
    tracks = [2, 7, 0, 5, 4, 8]
    kinds = ["car", "truck", "bus", "pedestrian", "car", "pedestrian"]
    for axis, track, kind in zip(figure.axes, tracks, kinds, strict=True):
        sure = round(100 / (1 + math.exp(-track / 3)))
        assert axis.get_title() == f"{kind}; likeliest: {sure}%"
        _, likeliest, future, past = axis.lines
        assert np.allclose(likeliest.get_ydata()[1:], truth[track, :, 1] - 1)
        assert np.allclose(future.get_ydata()[1:], truth[track, :, 1])
        assert len(past.get_xdata()) == 8
    across, ahead = "metres to the right", "metres ahead of the camera"
    assert [axis.get_xlabel() for axis in figure.axes] == [""] * 3 + [across] * 3
    assert [axis.get_ylabel() for axis in figure.axes] == [ahead, "", ""] * 2
    legends = [axis.get_legend() for axis in figure.axes]
    assert [each.get_text() for each in legends[0].get_texts()] == [
        "predicted",
        "true future",
        "past",
    ]
    assert legends[1:] == [None] * 5
    plt.close(figure)


def test_a_track_is_drawn_from_above_the_likeliest_future_last_and_thickest():
    axis = plt.figure().subplots()
    past, truth = torch.randn(3, 2), torch.randn(4, 2)
    futures = torch.randn(3, 4, 2)
    show_track(axis, past, truth, futures, tensor([0.25, 0.75, 0.0]))
    order = [(futures[2], 0.0), (futures[0], 0.25), (futures[1], 0.75)]
    for line, (future, chance) in zip(axis.lines, order, strict=False):
        path = torch.cat([past[2:], future])
        assert np.array_equal(line.get_xydata(), path)  # from the present on
        assert line.get_linewidth() == 1 + 5 * chance
        assert line.get_alpha() == min(1, 0.3 + chance)
        assert (line.get_color(), line.get_linestyle()) == (ORANGE, "-")
    labels = [line.get_label() for line in axis.lines]
    assert labels[2:] == ["predicted", "true future", "past"]
    assert all(label.startswith("_") for label in labels[:2])
    future, seen = axis.lines[3:]
    assert np.array_equal(future.get_xydata(), torch.cat([past[2:], truth]))
    assert (future.get_color(), future.get_linestyle()) == (BLUE, "--")
    assert np.array_equal(seen.get_xydata(), past)
    assert (seen.get_color(), seen.get_marker()) == ("black", "o")
    assert axis.get_aspect() == 1  # a metre is a metre
    plt.close(axis.figure)


def test_the_page_says_what_the_task_is():
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(f"# 8. {TASK.title} · {TASK.hebrew}\n")
    assert f"**{TASK.metric}: " in page and TASK.metric == ADE
    assert f"the baseline ({TASK.baseline_name}); lower is better" in page
    assert not TASK.higher_is_better and TASK.name == PAGE.stem
    assert TASK.recipe == TaskRecipe(1500, 128, 5e-3, 0.01, pretrained=False, seed=13)
    assert ": 1,500 steps of 128, peak learning rate 0.005, random start, seed" in page
