"""What there is in a scene: road, weather, buildings, trees, and who moves how.

All is drawn from one generator of random numbers. Units: metres, seconds, radians.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

from src.vision_tasks.street.motion import NOW, TICK, Motion, Road, drive, parked, walk
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES

#: The colours by which captions call things, as RGB in [0, 1].
COLOURS = {
    "red": (0.80, 0.08, 0.08),
    "blue": (0.10, 0.25, 0.80),
    "white": (0.93, 0.93, 0.91),
    "black": (0.09, 0.09, 0.10),
    "yellow": (0.95, 0.78, 0.08),
    "green": (0.08, 0.55, 0.20),
}
CAMERA_HEIGHT = 1.5
#: Time between the two images of a scene, in seconds: one step of the grid of times.
FRAME_SECONDS = TICK


@dataclass(frozen=True)
class Weather:
    """light: what multiplies all colours; zenith and haze: RGB in [0, 1], of the sky
    overhead and at the horizon.

    fog: depth, in metres, at which 63 % of the light is haze. lamps: lights are on.
    headlight: strength of our own. sun: strength of shadows. noise: of the sensor,
    standard deviation in grey levels of [0, 1].
    """

    name: str
    light: tuple[float, float, float]
    zenith: tuple[float, float, float]
    haze: tuple[float, float, float]
    fog: float = 600.0
    sun: float = 0.0
    headlight: float = 0.0
    lamps: bool = False
    rain: bool = False
    wet: bool = False
    noise: float = 0.012


@dataclass(frozen=True)
class Body:
    """A car, truck, bus or pedestrian: a box of width x length x height that moves.

    coat: of vehicles the paint, of pedestrians the clothing; a key of COLOURS. look:
    random numbers in [0, 1) that decide on details of pedestrians.
    """

    kind: str
    coat: str
    width: float
    length: float
    height: float
    motion: Motion
    look: tuple[float, ...]

    @property
    def z(self) -> float:
        return float(self.motion.positions[NOW, 1])

    def pose(self, time: int) -> tuple[float, float, float]:
        """X, Z and heading at an index of the grid of times."""
        return *self.motion.positions[time], self.motion.headings[time]


@dataclass(frozen=True)
class Building:
    """Along the road from `near` to `far`; side: 1 right, -1 left.

    setback: from the centre line; depth: away from the road. gable: has a pitched roof.
    """

    near: float
    far: float
    side: int
    setback: float
    depth: float
    height: float
    gable: bool
    wall: tuple[float, float, float]
    roof: tuple[float, float, float]
    look: tuple[float, ...]


@dataclass(frozen=True)
class Tree:
    x: float
    z: float
    height: float
    leaves: tuple[float, float, float]
    look: tuple[float, ...]


@dataclass(frozen=True)
class Anomaly:
    """What does not belong on a road, of a kind in ANOMALIES; colour: RGB in [0, 1]."""

    kind: str
    x: float
    z: float
    width: float
    height: float
    colour: tuple[float, float, float]
    look: tuple[float, ...]


#: Kinds of anomaly: range of widths and heights in metres; a hole's height is its
#: length along the road.
ANOMALIES = {
    "boulder": ((1.2, 2.2), (0.9, 1.5)),
    "log": ((2.6, 4.0), (0.5, 0.8)),
    "sofa": ((1.8, 2.4), (0.9, 1.1)),
    "cow": ((2.0, 2.6), (1.4, 1.7)),
    "ball": ((1.2, 2.2), (1.2, 2.2)),
    "hole": ((1.6, 2.6), (2.0, 3.5)),
    "boxes": ((1.6, 2.6), (0.9, 1.5)),
    "tyres": ((0.8, 1.1), (0.9, 1.5)),
}


@dataclass(frozen=True)
class World:
    """speed: ours, along the road, in m/s; yaw_rate: to the right, in rad/s."""

    road: Road
    weather: Weather
    speed: float
    yaw_rate: float
    bodies: tuple[Body, ...]
    buildings: tuple[Building, ...]
    trees: tuple[Tree, ...]
    clouds: np.ndarray  # [C, 5]: tangents of azimuth and elevation, widths, strength
    anomaly: Anomaly | None
    texture_seed: int

    def camera(self, time: float) -> tuple[float, float, float]:
        """X, Z and heading of the camera `time` seconds from now."""
        turned, driven = self.yaw_rate * time, self.speed * time
        return (
            driven * np.sin(turned / 2),
            driven * np.cos(turned / 2),
            turned,
        )


def sample_world(rng: Generator, with_anomaly: bool) -> World:
    """A random scene. with_anomaly: whether something lies on the road."""
    weather = _weather(rng)
    road = _road(rng)
    speed = 0.0 if rng.random() < 0.08 else rng.uniform(1.0, 7.0)
    yaw_rate = np.clip(speed * road.curvature + rng.normal(0, 0.13), -0.35, 0.35)
    bodies, junction, crossing = _bodies(rng, road, weather, speed)
    road = replace(road, crossing=crossing, junction=junction)
    buildings, trees = _roadsides(rng, road)
    return World(
        road,
        weather,
        speed,
        float(yaw_rate) if speed else 0.0,
        bodies,
        buildings,
        trees,
        _clouds(rng, weather),
        _anomaly(rng, road, bodies) if with_anomaly else None,
        int(rng.integers(2**31)),
    )


def _weather(rng: Generator) -> Weather:
    name = rng.choice(
        ("clear", "overcast", "rain", "fog", "dusk", "night"),
        p=(0.26, 0.18, 0.16, 0.13, 0.12, 0.15),
    )
    if name == "clear":
        return Weather(
            "clear", (1.05, 1.02, 0.96), (0.25, 0.5, 0.88), (0.74, 0.86, 0.96), sun=0.55
        )
    if name == "overcast":
        return Weather(
            "overcast", (0.8, 0.82, 0.85), (0.56, 0.6, 0.65), (0.76, 0.78, 0.8), sun=0.3
        )
    if name == "rain":
        return Weather(
            "rain",
            (0.62, 0.66, 0.72),
            (0.36, 0.4, 0.46),
            (0.55, 0.59, 0.64),
            fog=160.0,
            sun=0.2,
            lamps=True,
            rain=True,
            wet=True,
            noise=0.018,
        )
    if name == "fog":
        return Weather(
            "fog",
            (0.82, 0.84, 0.86),
            (0.72, 0.74, 0.76),
            (0.74, 0.76, 0.78),
            fog=rng.uniform(18.0, 32.0),
            sun=0.15,
            lamps=True,
        )
    if name == "dusk":
        return Weather(
            "dusk",
            (0.62, 0.5, 0.52),
            (0.2, 0.2, 0.42),
            (0.95, 0.52, 0.3),
            sun=0.25,
            headlight=0.25,
            lamps=True,
            noise=0.018,
        )
    wet = bool(rng.random() < 0.35)
    return Weather(
        "night",
        (0.24, 0.26, 0.36),
        (0.015, 0.02, 0.06),
        (0.07, 0.08, 0.15),
        headlight=0.85,
        lamps=True,
        rain=wet,
        wet=wet,
        noise=0.025,
    )


def _road(rng: Generator) -> Road:
    """Bends are either hardly there or plain to see, so that captions can name them."""
    lane_width = rng.uniform(3.2, 3.7)
    bend = rng.choice((-1, 0, 1), p=(0.34, 0.32, 0.34))
    curvature = bend * rng.uniform(0.006, 0.016) + rng.normal(0, 0.0004)
    heading = rng.normal(0, 0.015)
    return Road(
        offset=-lane_width / 2 + np.clip(rng.normal(0, 0.25), -0.6, 0.6),
        heading=heading,
        curvature=curvature,
        lane_width=lane_width,
        shoulder=2.3 if rng.random() < 0.4 else 0.35,
        pavement=rng.uniform(1.8, 3.0),
    )


#: How often a class is placed most prominently.
_HEROES = {"car": 0.33, "truck": 0.2, "bus": 0.2, "pedestrian": 0.27}
_OTHERS = {"car": 0.4, "truck": 0.11, "bus": 0.11, "pedestrian": 0.38}


def _bodies(
    rng: Generator, road: Road, weather: Weather, ego_speed: float
) -> tuple[tuple[Body, ...], float, float]:
    """Bodies, and how far along a side road and a zebra crossing are.

    The first body, of a class drawn for balance, must look the largest.
    """
    bodies: list[Body] = []
    junction = crossing = np.inf
    hero_area = np.inf
    wanted = 1 + rng.binomial(6, 0.45)
    for _ in range(4 * wanted):
        if len(bodies) == wanted:
            break
        hero = not bodies
        chances = _HEROES if hero else _OTHERS
        kind = str(rng.choice(OBJECT_CLASSES, p=list(chances.values())))
        place = _pedestrian if kind == "pedestrian" else _vehicle
        body, side_road, zebra = place(rng, road, weather, kind, hero, ego_speed)
        area = _seen_area(body)
        if area < 0.0015 or area > 0.75 * hero_area:
            continue
        if body.z - body.length / 2 > 1.5 * weather.fog:
            continue  # lost in the fog
        if any(_collide(body, other) for other in bodies):
            continue
        if hero:
            hero_area = area
        bodies.append(body)
        junction = side_road if junction == np.inf else junction
        crossing = zebra if crossing == np.inf else crossing
    return tuple(bodies), junction, crossing


def _vehicle(
    rng: Generator,
    road: Road,
    weather: Weather,
    kind: str,
    hero: bool,
    ego_speed: float,
) -> tuple[Body, float, float]:
    width, length, height = {
        "car": (1.8, rng.uniform(3.9, 4.6), rng.uniform(1.42, 1.6)),
        "truck": (2.45, rng.uniform(6.8, 8.5), rng.uniform(3.0, 3.5)),
        "bus": (2.5, rng.uniform(9.5, 11.5), rng.uniform(2.9, 3.2)),
    }[kind]
    where = rng.choice(("ahead", "oncoming", "parked"), p=(0.45, 0.35, 0.2))
    nearest = 5.0 if where == "ahead" else 7.5
    gap = rng.uniform(nearest, 17.0 if hero else 50.0)
    z = gap + length / 2
    side_road = np.inf
    if where == "parked":
        side = 1 if rng.random() < 0.5 else -1
        room = road.shoulder - 2.3 if road.shoulder > 2 else -0.6
        lateral = side * (road.lane_width + room + 1.25)
        motion = parked(road, z, lateral, side)
    else:
        direction = 1 if where == "ahead" else -1
        lateral = direction * road.lane_width / 2 + rng.normal(0, 0.15)
        if direction > 0:
            speed = max(ego_speed + rng.uniform(-1.0, 4.0), 3.0)
        else:
            speed = rng.uniform(3.5, 8.5)
        motion, side_road = drive(road, z, lateral, direction, speed, rng)
    coat = _coat(rng, weather, kind)
    look = tuple(rng.random(4))
    return Body(kind, coat, width, length, height, motion, look), side_road, np.inf


def _pedestrian(
    rng: Generator,
    road: Road,
    weather: Weather,
    kind: str,
    hero: bool,
    ego_speed: float,
) -> tuple[Body, float, float]:
    height = rng.uniform(1.6, 1.9)
    z = rng.uniform(4.5, 8.0) if hero else rng.uniform(8.0, 26.0)
    crosses = bool(rng.random() < (0.55 if hero else 0.35))
    side = 1 if rng.random() < (0.6 if hero else 0.5) else -1
    if crosses:
        lateral = rng.uniform(-1, 1) * (road.lane_width + 0.2)
    else:
        lateral = side * (road.half_width + rng.uniform(0.3, road.pavement - 0.3))
    if hero:  # well within the field of view
        x = np.clip(road.edge(z, lateral), -0.4 * z, 0.4 * z)
        lateral = road.lateral(x, z)
    motion = walk(road, z, lateral, crosses, rng)
    zebra = z if crosses and rng.random() < 0.6 else np.inf
    body = Body(
        kind,
        _coat(rng, weather, kind),
        0.62,
        0.5,
        height,
        motion,
        tuple(rng.random(6)),
    )
    return body, np.inf, zebra


def _coat(rng: Generator, weather: Weather, kind: str) -> str:
    names = list(COLOURS)
    if weather.name in ("night", "dusk") or kind in ("truck", "bus"):
        names.remove("black")  # could not be told from the dark
    return names[rng.integers(len(names))]


def _corners(body: Body) -> np.ndarray:
    x, z, heading = body.pose(NOW)
    ahead = np.array([np.sin(heading), np.cos(heading)]) * body.length / 2
    right = np.array([np.cos(heading), -np.sin(heading)]) * body.width / 2
    signs = np.array([(-1, -1), (-1, 1), (1, 1), (1, -1)])
    return np.array([x, z]) + signs[:, :1] * ahead + signs[:, 1:] * right


def _seen_area(body: Body) -> float:
    """Rough part of the image that a body covers, if nothing hides it."""
    corners = _corners(body)
    nearest = corners[:, 1].min()
    if nearest < 3.8:
        return 0.0
    columns = np.clip(corners[:, 0] / corners[:, 1], -0.5, 0.5)
    return float((columns.max() - columns.min()) * body.height / nearest) * 0.8


def _collide(one: Body, other: Body) -> bool:
    """Whether two bodies are too close; by boxes along the axes, with room to spare."""
    a, b = _corners(one), _corners(other)
    room = 0.4 if "pedestrian" in (one.kind, other.kind) else 1.0
    overlap = np.minimum(a.max(0), b.max(0)) - np.maximum(a.min(0), b.min(0))
    return bool((overlap > (-0.3, -room)).all())


_WALLS = (
    (0.78, 0.66, 0.52),
    (0.72, 0.42, 0.34),
    (0.86, 0.82, 0.72),
    (0.62, 0.64, 0.68),
    (0.70, 0.76, 0.78),
    (0.84, 0.70, 0.56),
    (0.60, 0.50, 0.46),
)
_ROOFS = ((0.55, 0.24, 0.18), (0.36, 0.34, 0.36), (0.45, 0.30, 0.22))


def _roadsides(
    rng: Generator, road: Road
) -> tuple[tuple[Building, ...], tuple[Tree, ...]]:
    """Buildings or gaps with trees, along both sides."""
    buildings, trees = [], []
    density = rng.uniform(0.35, 0.95)
    kerb = road.half_width + road.pavement
    for side in (-1, 1):
        z = rng.uniform(3.0, 9.0)
        while z < 80:
            length = rng.uniform(8.0, 16.0)
            free = abs(road.junction - z - length / 2) > length / 2 + 4.5
            if free and rng.random() < density:
                gable = bool(rng.random() < 0.45)
                buildings.append(
                    Building(
                        near=z,
                        far=z + length,
                        side=side,
                        setback=kerb + rng.uniform(0.8, 4.5),
                        depth=rng.uniform(7.0, 11.0),
                        height=rng.uniform(4.5, 7.0) if gable else rng.uniform(7, 17),
                        gable=gable,
                        wall=_WALLS[rng.integers(len(_WALLS))],
                        roof=_ROOFS[rng.integers(len(_ROOFS))],
                        look=tuple(rng.random(3)),
                    )
                )
            elif free:
                at = road.point(z + length / 2, side * (kerb + rng.uniform(1.5, 7)))
                trees.append(_tree(rng, at))
            z += length + rng.uniform(0.5, 4.0)
        for z in rng.uniform(7.0, 45.0, rng.integers(0, 4)):
            if abs(road.junction - z) > 5:
                trees.append(_tree(rng, road.point(z, side * (kerb + 0.6))))
    return tuple(buildings), tuple(trees)


def _tree(rng: Generator, at: np.ndarray) -> Tree:
    green = np.array([0.16, 0.40, 0.12]) + rng.uniform(-0.05, 0.09, 3)
    if rng.random() < 0.12:
        green = np.array([0.72, 0.42, 0.12]) + rng.uniform(-0.06, 0.06, 3)
    height = rng.uniform(3.8, 7.0)
    return Tree(at[0], at[1], height, tuple(green), tuple(rng.random(8)))


def _clouds(rng: Generator, weather: Weather) -> np.ndarray:
    if weather.name in ("fog", "night"):
        return np.zeros((0, 5))
    if weather.name == "clear":
        count, puffs, spread, size = 3, 6, (0.075, 0.013), (0.06, 0.028)
    else:
        count, puffs, spread, size = 5, 3, (0.2, 0.03), (0.22, 0.05)
    count = int(rng.integers(1, count + 1))
    middles = np.stack(
        [rng.uniform(-0.6, 0.6, count), rng.uniform(0.16, 0.5, count)], 1
    )
    places = np.repeat(middles, puffs, 0)
    places += rng.normal(0, spread, places.shape)
    sizes = np.array(size) * rng.uniform(0.5, 1.3, places.shape)
    strength = rng.uniform(0.35, 0.8, (len(places), 1))
    return np.concatenate([places, sizes, strength], 1)


def _anomaly(rng: Generator, road: Road, bodies: tuple[Body, ...]) -> Anomaly:
    kind = str(rng.choice(list(ANOMALIES)))
    widths, heights = ANOMALIES[kind]
    for _ in range(20):  # until it touches nobody
        z = rng.uniform(6.0, 22.0)
        reach = min(road.lane_width * 0.75, 0.36 * z)
        lateral = np.clip(rng.normal(road.lane_width / 2, 1.3), -reach, reach + 1.0)
        x, z = road.point(z, lateral)
        gaps = [
            np.abs(_corners(body).mean(0) - (x, z)) - (body.width / 2, body.length / 2)
            for body in bodies
        ]
        if all((gap > (1.6, 1.8)).any() for gap in gaps):
            break
    colours = {
        "boulder": (0.48, 0.45, 0.42),
        "log": (0.42, 0.27, 0.14),
        "cow": (0.92, 0.90, 0.86),
        "hole": (0.07, 0.06, 0.055),
        "boxes": (0.72, 0.52, 0.30),
        "tyres": (0.10, 0.10, 0.11),
    }
    bright = ((0.85, 0.2, 0.5), (0.15, 0.6, 0.75), (0.55, 0.3, 0.7), (0.9, 0.5, 0.1))
    colour = colours.get(kind, bright[rng.integers(len(bright))])
    height = rng.uniform(*heights)
    width = height if kind == "ball" else rng.uniform(*widths)
    return Anomaly(kind, x, z, width, height, colour, tuple(rng.random(8)))
