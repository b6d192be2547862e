"""Where the road runs, and how what is on it moves.

Everything is on the ground plane, in the present camera's frame: X to the right, Z
ahead, in metres. A heading is an angle from the Z axis towards the X axis, in radians.
Times are a grid of 0.1 s from the first step of the past to the last of the future.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from src.vision_tasks.street.vocabulary import FUTURE_STEPS, PAST_STEPS, STEP_SECONDS

TICK = 0.1
_STRIDE = round(STEP_SECONDS / TICK)
#: The index of the present in `TIMES` and in every motion.
NOW = (PAST_STEPS - 1) * _STRIDE
TIMES = (np.arange(NOW + FUTURE_STEPS * _STRIDE + 1) - NOW) * TICK
#: Standard deviation of each coordinate of an observed past position, in metres.
OBSERVATION_NOISE = 0.06


@dataclass(frozen=True)
class Road:
    """Two lanes; the centre line is X = offset + heading Z + curvature Z^2 / 2.

    heading: more exactly its tangent, at the camera. curvature: in 1/m, to the right.
    lane_width, shoulder (asphalt beyond an edge line) and pavement: widths, in metres.
    crossing, junction: how far along are the middle of a zebra crossing and of a side
        road; infinity for none.
    """

    offset: float
    heading: float
    curvature: float
    lane_width: float
    shoulder: float
    pavement: float
    crossing: float = np.inf
    junction: float = np.inf

    @property
    def half_width(self) -> float:
        """From the centre line to the kerb."""
        return self.lane_width + self.shoulder

    def centre(self, z: np.ndarray) -> np.ndarray:
        return self.offset + z * (self.heading + 0.5 * self.curvature * z)

    def slope(self, z: np.ndarray) -> np.ndarray:
        """dX / dZ of the centre line."""
        return self.heading + self.curvature * z

    def lateral(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """How far to the right of the centre line a point is, across the road."""
        return (x - self.centre(z)) / np.sqrt(1 + self.slope(z) ** 2)

    def edge(self, z: np.ndarray, lateral: float) -> np.ndarray:
        """X of the line at a constant lateral position: the inverse of `lateral`."""
        return self.centre(z) + lateral * np.sqrt(1 + self.slope(z) ** 2)

    def point(self, z: np.ndarray, lateral: np.ndarray) -> np.ndarray:
        """[..., 2]: the point at `lateral` to the right of the centre line at `z`."""
        slope = self.slope(z)
        normal = lateral / np.sqrt(1 + slope**2)
        return np.stack([self.centre(z) + normal, z - normal * slope], -1)

    def heading_at(self, z: np.ndarray) -> np.ndarray:
        """The heading of who drives along as we do, at `z`."""
        return np.arctan(self.slope(z))


@dataclass(frozen=True)
class Motion:
    """positions [T, 2] and headings [T] on the grid of times; braking: at present."""

    positions: np.ndarray
    headings: np.ndarray
    braking: bool = False

    def track(self, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """past [8, 2], observed with noise but for the present, and future [12, 2]."""
        past = self.positions[: NOW + 1 : _STRIDE].copy()
        past[:-1] += rng.normal(0, OBSERVATION_NOISE, past[:-1].shape)
        return past, self.positions[NOW + _STRIDE :: _STRIDE]


def parked(road: Road, z: float, lateral: float, direction: int) -> Motion:
    """Something that stands along the road. direction: 1 as we drive, -1 oncoming."""
    heading = road.heading_at(z) + (np.pi if direction < 0 else 0.0)
    return Motion(
        np.tile(road.point(z, lateral), (len(TIMES), 1)), np.full(len(TIMES), heading)
    )


#: What a driver may do, and how often.
_DRIVES = ("keep", "brake", "start", "change lane", "turn left", "turn right")
_DRIVE_CHANCES = (0.27, 0.19, 0.1, 0.12, 0.16, 0.16)


def drive(
    road: Road, z: float, lateral: float, direction: int, speed: float, rng: Generator
) -> tuple[Motion, float]:
    """A vehicle in a lane that is at (z, lateral) now; and where it turns off.

    direction: 1 as we drive, -1 oncoming. speed: in m/s, before the manoeuvre. The
    manoeuvre begins at a random time, often before the present, so that the past hints
    at it. Second value: z of the side road it takes, or infinity.
    """
    manoeuvre = rng.choice(_DRIVES, p=_DRIVE_CHANCES)
    onset = rng.uniform(-1.8, 1.6)
    since = np.maximum(TIMES - onset, 0)
    speeds = speed + rng.normal(0, 0.3) * TIMES
    shift = np.zeros(len(TIMES))
    turn_at = np.inf
    if manoeuvre == "brake":
        speeds = speeds - rng.uniform(1.5, 4.0) * since
    elif manoeuvre == "start":
        speeds = np.minimum(rng.uniform(1.2, 2.8) * since, speed)
    elif manoeuvre == "change lane":
        part = np.clip(since / rng.uniform(2.0, 3.5), 0, 1)
        side = -np.sign(lateral) if rng.random() < 0.8 else np.sign(lateral)
        shift = side * road.lane_width * part**2 * (3 - 2 * part)
    elif manoeuvre.startswith("turn"):
        slow = min(speed, rng.uniform(3.5, 5.0))
        speeds = np.maximum(speeds - 2.5 * since, slow)
        turn_at = onset + rng.uniform(0.8, 1.6)
    speeds = np.clip(speeds, 0, 14)
    travelled = np.concatenate([[0], np.cumsum((speeds[1:] + speeds[:-1]) * TICK / 2)])
    travelled -= travelled[NOW]
    motion = _follow(road, z, lateral + shift - shift[NOW], direction, travelled)
    # a lane change is steering, so the vehicle points where it goes
    steering = np.arctan2(np.gradient(shift, TICK), np.maximum(speeds, 1.0))
    motion = replace(
        motion,
        headings=motion.headings + direction * steering,
        braking=bool(speeds[NOW] - speeds[NOW + 1] > 0.05 or speeds[NOW] < 0.05),
    )
    if turn_at == np.inf:
        return motion, np.inf
    start = int(np.searchsorted(TIMES, turn_at))
    side = 1 if manoeuvre == "turn right" else -1
    radius = 6.0 if side > 0 else 9.0
    turned = _turn_off(motion, travelled, start, side, radius)
    side_road = z_of(road, z, direction * (travelled[start] + radius))
    # what the turn moved at present, the whole is moved back: it is at (z, lateral) now
    back = motion.positions[NOW] - turned.positions[NOW]
    return replace(turned, positions=turned.positions + back), side_road


def z_of(road: Road, z: float, distance: np.ndarray) -> np.ndarray:
    """Z of the points that are `distance` metres along the road from `z`."""
    nodes = np.linspace(-90.0, 190.0, 281)
    steps = np.sqrt(1 + road.slope(nodes[:-1] + 0.5) ** 2)
    length = np.concatenate([[0], np.cumsum(steps)])
    return np.interp(np.interp(z, nodes, length) + distance, length, nodes)


def _follow(
    road: Road, z: float, lateral: np.ndarray, direction: int, travelled: np.ndarray
) -> Motion:
    along = z_of(road, z, direction * travelled)
    headings = road.heading_at(along) + (np.pi if direction < 0 else 0.0)
    return Motion(road.point(along, lateral), headings)


def _turn_off(
    motion: Motion, travelled: np.ndarray, start: int, side: int, radius: float
) -> Motion:
    """Leaves the motion at index `start` along a quarter circle, then goes straight."""
    beyond = np.maximum(travelled - travelled[start], 0)
    angle = np.minimum(beyond / radius, np.pi / 2)
    heading = motion.headings[start]
    ahead = np.array([np.sin(heading), np.cos(heading)])
    aside = side * np.array([ahead[1], -ahead[0]])
    forwards = radius * np.sin(angle)
    sideways = radius * (1 - np.cos(angle)) + beyond - radius * angle
    positions = motion.positions[start] + forwards[:, None] * ahead
    positions += sideways[:, None] * aside
    before = np.arange(len(TIMES)) < start
    return replace(
        motion,
        positions=np.where(before[:, None], motion.positions, positions),
        headings=np.where(before, motion.headings, heading + side * angle),
    )


_WALKS = ("keep", "stop", "start", "turn")
_WALK_CHANCES = (0.35, 0.2, 0.15, 0.3)


def walk(road: Road, z: float, lateral: float, crosses: bool, rng: Generator) -> Motion:
    """A pedestrian at (z, lateral) now. crosses: goes across the road, not along it."""
    along = road.heading_at(z) + (np.pi if rng.random() < 0.5 else 0.0)
    inwards = np.sign(lateral) if lateral else 1.0
    across = road.heading_at(z) - inwards * np.pi / 2
    if crosses and rng.random() < 0.3:
        across += np.pi
    heading, other = (across, along) if crosses else (along, across)
    manoeuvre = rng.choice(_WALKS, p=_WALK_CHANCES)
    onset = rng.uniform(-1.6, 1.8)
    since = np.maximum(TIMES - onset, 0)
    speeds = np.full(len(TIMES), rng.uniform(0.8, 1.9))
    headings = np.full(len(TIMES), heading)
    if manoeuvre == "stop":
        speeds *= 1 - np.minimum(since / 0.8, 1)
    elif manoeuvre == "start":
        speeds *= np.minimum(since / 0.8, 1)
    elif manoeuvre == "turn":
        change = (other - heading + np.pi) % (2 * np.pi) - np.pi
        headings = heading + change * np.minimum(since / 1.2, 1)
    velocity = speeds[:, None] * np.stack([np.sin(headings), np.cos(headings)], -1)
    steps = (velocity[1:] + velocity[:-1]) * TICK / 2
    positions = np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)])
    return Motion(positions - positions[NOW] + road.point(z, lateral), headings)
