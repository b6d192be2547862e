"""Roads and motions, against plain geometry and step-by-step kinematics."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from src.vision_tasks.street.motion import (
    NOW,
    OBSERVATION_NOISE,
    TIMES,
    Motion,
    Road,
    drive,
    parked,
    walk,
    z_of,
)
from src.vision_tasks.street.vocabulary import FUTURE_STEPS, PAST_STEPS, STEP_SECONDS

STRAIGHT = Road(0.0, 0.0, 0.0, lane_width=3.5, shoulder=0.35, pavement=2.0)
BENT = Road(-1.7, 0.05, 0.012, lane_width=3.4, shoulder=2.3, pavement=2.2)


class Scripted:
    """Stands in for a generator: says what it is told, at `part` of every range."""

    def __init__(self, choice: str = "keep", part: float = 0.5, random=(), normal=0.0):
        self.chosen, self.part, self.randoms = choice, part, iter(random)
        self.normal_value = normal

    def choice(self, options, p):
        self.chances = dict(zip(options, p, strict=True))
        return self.chosen

    def uniform(self, low, high):
        return low + self.part * (high - low)

    def normal(self, mean, deviation):
        return mean + self.normal_value * deviation

    def random(self):
        return next(self.randoms)


def between(low: float, high: float, part: float) -> float:
    return low + part * (high - low)


def travelled(speeds: np.ndarray) -> np.ndarray:
    """Metres from where one is at present, at speeds on the grid of times."""
    metres = [0.0]
    for before, after in pairwise(speeds):
        metres.append(metres[-1] + 0.1 * (before + after) / 2)
    return np.array(metres) - metres[NOW]


# --- the road ---


def test_the_road_is_a_parabola_that_bends_to_the_right():
    z = np.array([0.0, 10.0, 40.0])
    assert BENT.centre(z) == pytest.approx([-1.7, -1.7 + 0.5 + 0.6, -1.7 + 2 + 9.6])
    assert BENT.slope(z) == pytest.approx([0.05, 0.17, 0.53])
    assert BENT.heading_at(z) == pytest.approx(np.arctan([0.05, 0.17, 0.53]))
    assert BENT.half_width == pytest.approx(3.4 + 2.3)


@pytest.mark.parametrize("lateral", [-5.0, 0.0, 2.5])
def test_a_point_is_square_to_the_centre_line(lateral):
    z = np.linspace(0, 50, 11)
    points = BENT.point(z, lateral)
    assert points.shape == (11, 2)
    off = points - np.stack([BENT.centre(z), z], -1)
    heading = np.arctan(0.05 + 0.012 * z)
    tangents = np.stack([np.sin(heading), np.cos(heading)], -1)
    normals = np.stack([np.cos(heading), -np.sin(heading)], -1)
    assert (off * tangents).sum(-1) == pytest.approx(np.zeros(11), abs=1e-12)
    assert (off * normals).sum(-1) == pytest.approx(np.full(11, lateral))


def test_edge_is_the_inverse_of_lateral():
    z = np.linspace(0, 50, 11)
    slope = 0.05 + 0.012 * z
    x = BENT.centre(z) + 2.0
    assert BENT.lateral(x, z) == pytest.approx(2.0 / np.sqrt(1 + slope**2))
    for lateral in (-3.4, 0.0, 1.0):
        x = BENT.edge(z, lateral)
        assert BENT.lateral(x, z) == pytest.approx(np.full(11, lateral))


@pytest.mark.parametrize("distance", [-30.0, 0.0, 7.5, 60.0])
def test_distances_are_measured_along_the_road(distance):
    assert z_of(STRAIGHT, 12.0, distance) == pytest.approx(12.0 + distance)
    end = float(z_of(BENT, 12.0, distance))
    z = np.linspace(12.0, end, 10_001)
    length = np.hypot(np.diff(z), np.diff(BENT.centre(z))).sum()
    assert np.sign(end - 12.0) * length == pytest.approx(distance, abs=0.01)


# --- tracks ---


def test_times_of_tracks():
    assert TIMES[NOW] == 0
    assert np.allclose(np.diff(TIMES), 0.1)
    clock = Motion(np.stack([TIMES, -TIMES], -1), np.zeros(len(TIMES)))
    past, future = clock.track(Scripted2D())
    expected = STEP_SECONDS * np.arange(1 - PAST_STEPS, 1 + FUTURE_STEPS)
    track = np.concatenate([past, future])
    assert np.allclose(track, np.stack([expected, -expected], -1))
    assert (PAST_STEPS, FUTURE_STEPS, STEP_SECONDS) == (8, 12, 0.4)
    assert past.shape == (8, 2) and future.shape == (12, 2)


class Scripted2D:
    """A generator without noise."""

    def normal(self, mean, deviation, shape):
        return np.full(shape, mean)


def test_only_the_past_is_observed_with_noise_and_the_present_is_exact():
    motion = parked(STRAIGHT, 20.0, 1.0, 1)
    rng = np.random.default_rng(0)
    tracks = [motion.track(rng) for _ in range(500)]
    past, future = (np.stack(part) for part in zip(*tracks, strict=True))
    assert (past[:, -1] == (1.0, 20.0)).all() and (future == (1.0, 20.0)).all()
    noise = past[:, :-1] - (1.0, 20.0)
    assert noise.mean((0, 1)) == pytest.approx([0, 0], abs=0.006)
    assert noise.std((0, 1)) == pytest.approx([0.06, 0.06], rel=0.06)
    assert OBSERVATION_NOISE == 0.06
    assert (motion.positions == (1.0, 20.0)).all()  # is left as it was


@pytest.mark.parametrize("direction, turned", [(1, 0.0), (-1, np.pi)])
def test_what_is_parked_stands_along_the_road(direction, turned):
    motion = parked(BENT, 20.0, -5.0, direction)
    assert motion.positions == pytest.approx(
        np.tile(BENT.point(20.0, -5.0), (len(TIMES), 1))
    )
    assert motion.headings == pytest.approx(
        np.full(len(TIMES), np.arctan(0.29) + turned)
    )
    assert not motion.braking


# --- driving ---


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("part", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("manoeuvre", ["keep", "brake", "start"])
def test_speeds_of_a_drive(manoeuvre, part, direction):
    """On a straight road: keeps its speed but for a drift, brakes, or starts."""
    rng = Scripted(manoeuvre, part, normal=1.5)
    motion, side_road = drive(STRAIGHT, 20.0, 1.75 * direction, direction, 6.0, rng)
    onset = between(-1.8, 1.6, part)
    speeds = []
    for time in TIMES:
        since = max(time - onset, 0)
        speed = 6.0 + 1.5 * 0.3 * time
        if manoeuvre == "brake":
            speed -= between(1.5, 4.0, part) * since
        elif manoeuvre == "start":
            speed = min(between(1.2, 2.8, part) * since, 6.0)
        speeds.append(min(max(speed, 0), 14))
    speeds = np.array(speeds)
    expected = np.full((len(TIMES), 2), 1.75 * direction)
    expected[:, 1] = 20.0 + direction * travelled(speeds)
    assert np.allclose(motion.positions, expected, atol=1e-9)
    assert np.allclose(motion.headings, 0 if direction > 0 else np.pi)
    slows = speeds[NOW] - speeds[NOW + 1] > 0.05
    assert motion.braking == (slows or speeds[NOW] == 0)
    assert side_road == np.inf


def test_nobody_drives_backwards_or_faster_than_14_metres_a_second():
    for speed in (30.0, -5.0):
        motion, _ = drive(STRAIGHT, 20.0, 1.75, 1, speed, Scripted())
        steps = np.diff(motion.positions[:, 1])
        assert np.allclose(steps, 1.4 if speed > 0 else 0)
        assert motion.braking == (speed < 0)  # who stands has his brake lights on


@pytest.mark.parametrize("random, sign", [(0.79, -1), (0.81, 1)])
@pytest.mark.parametrize("direction", [1, -1])
def test_a_lane_change_is_a_smooth_step_of_one_lane(direction, random, sign):
    lateral = 1.75 * direction
    rng = Scripted("change lane", 0.5, [random])
    motion, side_road = drive(STRAIGHT, 20.0, lateral, direction, 5.0, rng)
    part = np.clip((TIMES - between(-1.8, 1.6, 0.5)) / 2.75, 0, 1)
    shift = sign * direction * 3.5 * (3 * part**2 - 2 * part**3)
    assert np.allclose(motion.positions[:, 0], lateral + shift - shift[NOW])
    assert np.allclose(motion.positions[:, 1], 20.0 + direction * 5.0 * TIMES)
    # it points where it goes
    moved = np.gradient(motion.positions, axis=0)
    went = np.arctan2(moved[:, 0], moved[:, 1])
    difference = (motion.headings - went + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(difference).max() < 0.02
    assert np.abs(shift).max() > 3.4 and side_road == np.inf


def test_a_lane_change_at_a_crawl_does_not_spin_the_vehicle():
    motion, _ = drive(STRAIGHT, 20.0, 1.75, 1, 0.0, Scripted("change lane", 0.5, [0.5]))
    across = np.gradient(motion.positions[:, 0], 0.1)
    assert np.allclose(motion.headings, np.arctan2(across, 1.0))


@pytest.mark.parametrize("part", [0.2, 0.7])  # turns before the present; after it
@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("side, radius", [("right", 6.0), ("left", 9.0)])
def test_a_turn_is_a_quarter_circle(side, radius, direction, part):
    lateral, sign = 1.75 * direction, 1 if side == "right" else -1
    rng = Scripted(f"turn {side}", part)
    motion, side_road = drive(STRAIGHT, 20.0, lateral, direction, 9.0, rng)
    onset, slow = between(-1.8, 1.6, part), between(3.5, 5.0, part)
    speeds = np.array([max(9 - 2.5 * max(time - onset, 0), slow) for time in TIMES])
    way = travelled(speeds)
    turn_at = onset + between(0.8, 1.6, part)
    start = next(i for i, time in enumerate(TIMES) if time >= turn_at)
    assert (start < NOW) == (part < 0.5)
    x, z, angle = [], [], []
    for metres in way - way[start]:
        turned = min(max(metres, 0) / radius, np.pi / 2)
        beyond = max(metres - radius * np.pi / 2, 0)
        x.append(sign * (radius * (1 - np.cos(turned)) + beyond))
        z.append(radius * np.sin(turned) + min(metres, 0))
        angle.append(sign * turned)
    expected = direction * np.stack([x, z], -1)  # an oncoming one is turned by 180°
    expected += (lateral, 20.0) - expected[NOW]
    assert np.allclose(motion.positions, expected, atol=1e-6)
    heading = np.array(angle) + (0 if direction > 0 else np.pi)
    assert np.allclose(motion.headings, heading)
    assert side_road == pytest.approx(20.0 + direction * (way[start] + radius))


def test_who_is_slow_turns_at_that_speed():
    motion, _ = drive(STRAIGHT, 20.0, 1.75, 1, 2.0, Scripted("turn left", 0.7))
    steps = np.hypot(*np.diff(motion.positions, axis=0).T)
    assert np.allclose(steps, 0.2, rtol=0.01)


def test_a_drive_follows_a_bent_road():
    for direction in (1, -1):
        motion, _ = drive(BENT, 20.0, 1.7 * direction, direction, 6.0, Scripted())
        assert motion.positions[NOW] == pytest.approx(
            BENT.point(20.0, 1.7 * direction), abs=1e-4
        )
        along = np.array([z_of(BENT, 20.0, direction * 6.0 * t) for t in TIMES])
        assert np.allclose(motion.positions, BENT.point(along, 1.7 * direction))
        turned = 0 if direction > 0 else np.pi
        assert np.allclose(motion.headings, np.arctan(BENT.slope(along)) + turned)


def test_how_often_drivers_and_walkers_do_what():
    rng = Scripted()
    drive(STRAIGHT, 20.0, 1.75, 1, 6.0, rng)
    assert rng.chances == {
        "keep": 0.27,
        "brake": 0.19,
        "start": 0.1,
        "change lane": 0.12,
        "turn left": 0.16,
        "turn right": 0.16,
    }
    rng = Scripted(random=[0.0])
    walk(STRAIGHT, 20.0, 5.0, False, rng)
    assert rng.chances == {"keep": 0.35, "stop": 0.2, "start": 0.15, "turn": 0.3}


# --- walking ---


@pytest.mark.parametrize("part", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("manoeuvre", ["keep", "stop", "start", "turn"])
@pytest.mark.parametrize(
    "crosses, lateral, randoms, heading, other",
    [
        (False, 4.5, [0.6], 0.0, -np.pi / 2),  # along; would turn onto the road
        (False, -4.5, [0.4], np.pi, np.pi / 2),
        (True, 1.0, [0.6, 0.5], -np.pi / 2, 0.0),  # from the right to the left
        (True, -1.0, [0.6, 0.5], np.pi / 2, 0.0),
        (True, 0.0, [0.6, 0.5], -np.pi / 2, 0.0),
        (True, 1.0, [0.6, 0.2], np.pi / 2, 0.0),  # three of ten walk outwards
    ],
)
def test_a_walk(manoeuvre, part, crosses, lateral, randoms, heading, other):
    rng = Scripted(manoeuvre, part, randoms)
    motion = walk(STRAIGHT, 15.0, lateral, crosses, rng)
    onset, usual = between(-1.6, 1.8, part), between(0.8, 1.9, part)
    velocities, headings = [], []
    for time in TIMES:
        since = max(time - onset, 0)
        speed, turned = usual, heading
        if manoeuvre == "stop":
            speed = usual * max(1 - since / 0.8, 0)
        elif manoeuvre == "start":
            speed = usual * min(since / 0.8, 1)
        elif manoeuvre == "turn":  # the short way round
            short = (other - heading + np.pi) % (2 * np.pi) - np.pi
            turned = heading + short * min(since / 1.2, 1)
        headings.append(turned)
        velocities.append((speed * np.sin(turned), speed * np.cos(turned)))
    steps = np.stack([travelled(part) for part in np.transpose(velocities)], -1)
    at = np.array([lateral, 15.0])
    assert np.allclose(motion.positions, at + steps, atol=1e-9)
    assert np.allclose(motion.headings, headings)
    assert not motion.braking


def test_a_walk_follows_the_road_where_it_is():
    motion = walk(BENT, 15.0, 6.0, False, Scripted(random=[0.6]))
    assert np.allclose(motion.headings, np.arctan(0.05 + 0.012 * 15))
    motion = walk(BENT, 15.0, 1.0, True, Scripted(random=[0.6, 0.5]))
    assert np.allclose(motion.headings, np.arctan(0.05 + 0.012 * 15) - np.pi / 2)
    assert motion.positions[NOW] == pytest.approx(BENT.point(15.0, 1.0))


def test_motions_are_those_that_they_were():
    """A pinned sum over many, to notice a change by accident."""
    rng = np.random.default_rng(7)
    sums = np.zeros(3)
    for number in range(100):
        direction = 1 - 2 * (number % 2)
        road = replace(BENT, curvature=0.0003 * (number - 50))
        motion, side_road = drive(road, 18.0, 1.7 * direction, direction, 6.0, rng)
        walker = walk(road, 9.0, 2.0 - number % 5, number % 3 == 0, rng)
        for one in (motion, walker):
            weights = np.cos(np.arange(len(TIMES)) + number)
            sums[:2] += weights @ one.positions
            sums[2] += weights @ one.headings + 10 * one.braking
        sums[2] += min(side_road, 100.0)
    assert sums == pytest.approx(
        [-15.682712463565, 147.865571756446, 7817.079670621155], rel=1e-8
    )
