"""What stands in the drawn worlds, over many of them and against plain geometry."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from src.vision_tasks.street.motion import NOW, TIMES, Motion
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES
from src.vision_tasks.street.world import (
    ANOMALIES,
    CAMERA_HEIGHT,
    COLOURS,
    FRAME_SECONDS,
    Body,
    World,
    _collide,
    _seen_area,
    sample_world,
)

COUNT = 600
VEHICLES = ("car", "truck", "bus")


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [sample_world(np.random.default_rng([9, i]), False) for i in range(COUNT)]


@pytest.fixture(scope="module")
def odd_worlds() -> list[World]:
    return [sample_world(np.random.default_rng([8, i]), True) for i in range(300)]


@pytest.fixture(scope="module")
def bodies(worlds) -> list[Body]:
    return [body for world in worlds for body in world.bodies]


def body(x=0.0, z=20.0, heading=0.0, kind="car", size=(1.8, 4.0, 1.5)) -> Body:
    count = len(TIMES)
    motion = Motion(np.tile((x, z), (count, 1)), np.full(count, heading))
    return Body(kind, "red", *size, motion, (0.5,) * 6)


def outline(body: Body) -> np.ndarray:
    """[4, 2]: the corners on the ground; a heading turns from Z towards X."""
    turn = np.exp(-1j * body.motion.headings[NOW])
    corners = [
        (right * body.width + 1j * ahead * body.length) / 2 * turn
        for right in (-1, 1)
        for ahead in (-1, 1)
    ]
    middle = body.motion.positions[NOW]
    return np.array([(middle[0] + c.real, middle[1] + c.imag) for c in corners])


def area(body: Body) -> float:
    """About the part of the image, whose sides are 1 at a distance of 1, it covers."""
    corners = outline(body)
    nearest = min(corners[:, 1])
    if nearest < 3.8:
        return 0.0
    columns = [min(max(x / z, -0.5), 0.5) for x, z in corners]
    return 0.8 * (max(columns) - min(columns)) * body.height / nearest


def share(values, name) -> float:
    return Counter(values)[name] / len(values)


def near(part: float, count: int) -> object:
    """Within four standard deviations of a frequency."""
    return pytest.approx(part, abs=4 * (part * (1 - part) / count) ** 0.5)


# --- the camera and the bodies ---


def test_the_camera_follows_its_speed_and_yaw(worlds):
    world = next(world for world in worlds if world.speed > 4 and world.yaw_rate > 0.1)
    x = z = 0.0
    for step in range(1000):  # 0.1 s in small steps
        heading = world.yaw_rate * (step + 0.5) * 1e-4
        x += world.speed * 1e-4 * np.sin(heading)
        z += world.speed * 1e-4 * np.cos(heading)
    assert world.camera(0.1) == pytest.approx((x, z, 0.1 * world.yaw_rate), rel=1e-4)
    assert world.camera(0.0) == (0, 0, 0)
    assert CAMERA_HEIGHT == 1.5
    assert pytest.approx(TIMES[NOW + 1]) == FRAME_SECONDS


def test_a_body_is_where_its_motion_is():
    positions = np.stack([TIMES, 9 + 2 * TIMES], -1)
    one = Body("bus", "red", 2.0, 9.0, 3.0, Motion(positions, TIMES + 0.5), ())
    assert one.z == 9.0
    assert one.pose(NOW) == pytest.approx((0, 9, 0.5))
    assert one.pose(NOW + 3) == pytest.approx((0.3, 9.6, 0.8))


def test_how_large_a_body_looks():
    assert _seen_area(body(z=12.0)) == pytest.approx(0.8 * 0.18 * 0.15)
    assert _seen_area(body(z=5.79)) == 0  # its rear is nearer than 3.8 m
    assert _seen_area(body(z=5.81)) > 0
    assert _seen_area(body(x=30.0, z=12.0)) == 0  # outside the field of view
    for x, z, heading in ((-3.0, 9.0, 0.4), (2.0, 30.0, 1.9), (4.0, 8.0, np.pi)):
        one = body(x, z, heading)
        assert _seen_area(one) == pytest.approx(area(one))


@pytest.mark.parametrize(
    "x, z, kind, collide",
    [
        (0.0, 20.0, "car", True),
        (0.0, 24.9, "car", True),  # 0.9 m behind, of 1 m
        (0.0, 25.1, "car", False),
        (0.0, 15.1, "car", True),
        (2.0, 20.0, "car", True),  # 0.2 m beside, of 0.3 m
        (2.2, 20.0, "car", False),
        (-2.2, 20.0, "car", False),
        (0.0, 24.3, "pedestrian", True),  # 0.3 m, of 0.4 m
        (0.0, 24.5, "pedestrian", False),
    ],
)
def test_who_is_too_close(x, z, kind, collide):
    one, other = body(), body(x, z, kind=kind)
    assert _collide(one, other) == _collide(other, one) == collide


def test_bodies_keep_their_distance(worlds):
    for world in worlds:
        for one, other in combinations(world.bodies, 2):
            a, b = outline(one), outline(other)
            gap = np.maximum(a.min(0) - b.max(0), b.min(0) - a.max(0))
            room = 0.4 if "pedestrian" in (one.kind, other.kind) else 1.0
            assert gap[0] >= 0.3 or gap[1] >= room


def test_every_body_can_be_seen_and_the_first_looks_the_largest(worlds):
    ratios = []
    for world in worlds:
        areas = [area(body) for body in world.bodies]
        assert min(areas) >= 0.0015
        ratios += [other / areas[0] for other in areas[1:]]
        for body in world.bodies:
            assert body.z - body.length / 2 <= 1.5 * world.weather.fog
    assert 0.6 < max(ratios) <= 0.75


def test_how_many_bodies_there_are_and_of_which_kind(worlds, bodies):
    counts = [len(world.bodies) for world in worlds]
    assert min(counts) >= 1 and max(counts) <= 7
    assert np.mean(counts) == pytest.approx(3.3, abs=0.5)
    first = [world.bodies[0].kind for world in worlds]
    for kind in OBJECT_CLASSES:
        assert share(first, kind) > 0.15
    others = [body.kind for world in worlds for body in world.bodies[1:]]
    assert share(others, "car") > 2 * share(others, "truck")
    assert share(others, "pedestrian") > 2 * share(others, "bus")


@pytest.mark.parametrize(
    "kind, width, length, height",
    [
        ("car", 1.8, (3.9, 4.6), (1.42, 1.6)),
        ("truck", 2.45, (6.8, 8.5), (3.0, 3.5)),
        ("bus", 2.5, (9.5, 11.5), (2.9, 3.2)),
        ("pedestrian", 0.62, (0.5, 0.5), (1.6, 1.9)),
    ],
)
def test_measures_of_bodies(bodies, kind, width, length, height):
    some = [body for body in bodies if body.kind == kind]
    assert {body.width for body in some} == {width}
    for values, (low, high) in (
        ([body.length for body in some], length),
        ([body.height for body in some], height),
    ):
        assert low <= min(values) and max(values) <= high
        assert np.mean(values) == pytest.approx((low + high) / 2, rel=0.03)


def test_where_vehicles_are(worlds):
    """In the lane of their direction, or parked beyond the edge lines."""
    seen = Counter()
    for world in worlds:
        road = world.road
        for body in world.bodies:
            if body.kind == "pedestrian":
                continue
            (x, z), heading = body.motion.positions[NOW], body.motion.headings[NOW]
            assert 4.7 < body.z - body.length / 2 < 58
            stands = (body.motion.positions == body.motion.positions[0]).all()
            lateral = float(road.lateral(x, z))
            along = np.cos(heading - np.arctan(road.slope(z)))
            if stands and abs(lateral) > 0.8 * road.lane_width:
                seen["parked"] += 1
                side = np.sign(lateral)
                assert along * side == pytest.approx(1, abs=0.01)
                room = -0.6 if road.shoulder < 2 else 0.0
                expected = side * (road.lane_width + room + 1.25)
                assert lateral == pytest.approx(expected, abs=0.2)
            else:
                direction = 1 if lateral > 0 else -1
                assert lateral == pytest.approx(
                    direction * road.lane_width / 2, abs=0.9
                )
                seen[direction] += 1
                if body.z - body.length / 2 < 6.8:
                    assert direction == 1  # oncoming ones are not that near
    assert seen[1] > seen[-1] > seen["parked"] > 100


def test_where_pedestrians_are(worlds):
    first, others = [], []
    for world in worlds:
        road = world.road
        for number, body in enumerate(world.bodies):
            if body.kind != "pedestrian":
                continue
            x, z = body.motion.positions[NOW]
            (others if number else first).append(z)
            lateral = abs(float(road.lateral(x, z)))
            assert lateral <= road.half_width + road.pavement
            if number == 0:
                assert abs(x) < 0.45 * z  # within the field of view
            steps = np.hypot(*np.diff(body.motion.positions, axis=0).T)
            assert steps.max() <= 0.19 + 1e-9
    assert min(first) > 4.3 and max(first) < 8.4
    assert min(others) > 7.4 and max(others) < 28
    assert len(first) > 80 and len(others) > 200


def test_coats_can_be_told_from_the_dark(worlds):
    seen = Counter()
    for world in worlds:
        dark = world.weather.name in ("night", "dusk")
        for body in world.bodies:
            seen[body.coat] += 1
            if dark or body.kind in ("truck", "bus"):
                assert body.coat != "black"
    assert set(seen) == set(COLOURS)


# --- weather, road, roadsides ---


def test_how_often_which_weather_is_and_what_it_means(worlds):
    names = [world.weather.name for world in worlds]
    for name, part in {
        "clear": 0.26,
        "overcast": 0.18,
        "rain": 0.16,
        "fog": 0.13,
        "dusk": 0.12,
        "night": 0.15,
    }.items():
        assert share(names, name) == near(part, COUNT)
    rainy_nights = 0
    for world in worlds:
        weather = world.weather
        dark = weather.name in ("dusk", "night")
        assert weather.lamps == (weather.name not in ("clear", "overcast"))
        assert (weather.headlight > 0) == dark
        if weather.name == "night":
            assert weather.rain == weather.wet
            rainy_nights += weather.wet
        else:
            assert weather.rain == weather.wet == (weather.name == "rain")
        if weather.name == "fog":
            assert 18 <= weather.fog <= 32
        else:
            assert weather.fog == (160 if weather.name == "rain" else 600)
        assert len(world.clouds) == 0 or weather.name not in ("fog", "night")
        assert len(world.clouds) > 0 or weather.name in ("fog", "night")
    nights = names.count("night")
    assert rainy_nights / nights == near(0.35, nights)


def test_brightness_and_noise_of_the_weathers(worlds):
    by_name = {world.weather.name: world.weather for world in worlds}
    brightness = {name: sum(weather.light) for name, weather in by_name.items()}
    order = sorted(brightness, key=brightness.get)
    assert order == ["night", "dusk", "rain", "overcast", "fog", "clear"]
    noise = {name: weather.noise for name, weather in by_name.items()}
    assert noise == {
        "clear": 0.012,
        "overcast": 0.012,
        "fog": 0.012,
        "rain": 0.018,
        "dusk": 0.018,
        "night": 0.025,
    }
    assert max(by_name.values(), key=lambda weather: weather.sun).name == "clear"
    assert by_name["night"].headlight == 0.85 and by_name["dusk"].headlight == 0.25


def test_roads(worlds):
    roads = [world.road for world in worlds]
    widths = [road.lane_width for road in roads]
    assert 3.2 <= min(widths) < 3.22 and 3.68 < max(widths) <= 3.7
    assert {road.shoulder for road in roads} == {2.3, 0.35}
    shoulders = [road.shoulder for road in roads]
    assert share(shoulders, 2.3) == near(0.4, COUNT)
    assert min(road.pavement for road in roads) >= 1.8
    assert 2.9 < max(road.pavement for road in roads) <= 3
    # we are in the right lane, give or take
    off = [road.offset + road.lane_width / 2 for road in roads]
    assert np.abs(off).max() == pytest.approx(0.6) and np.std(off) == pytest.approx(
        0.25, rel=0.15
    )
    assert np.std([road.heading for road in roads]) == pytest.approx(0.015, rel=0.15)
    curvatures = np.array([road.curvature for road in roads])
    straight = np.abs(curvatures) < 0.003
    assert straight.mean() == near(0.32, COUNT)
    assert np.abs(curvatures[straight]).max() < 0.0015
    assert np.abs(curvatures[~straight]).min() > 0.0045  # plain to see
    assert 0.014 < np.abs(curvatures).max() < 0.0175
    assert (curvatures[~straight] > 0).mean() == near(0.5, int((~straight).sum()))


def test_how_the_camera_moves(worlds):
    speeds = np.array([world.speed for world in worlds])
    yaw = np.array([world.yaw_rate for world in worlds])
    assert (speeds == 0).mean() == near(0.08, COUNT)
    assert (yaw[speeds == 0] == 0).all()
    assert speeds[speeds > 0].min() >= 1 and 6.8 < speeds.max() <= 7
    assert np.abs(yaw).max() == pytest.approx(0.35)
    curvatures = np.array([world.road.curvature for world in worlds])
    moving = (speeds > 0) & (np.abs(yaw) < 0.349)
    rest = (yaw - speeds * curvatures)[moving]
    assert rest.mean() == pytest.approx(0, abs=0.02)
    assert rest.std() == pytest.approx(0.13, rel=0.1)


def test_side_roads_are_where_somebody_turns_and_crossings_where_somebody_crosses(
    worlds,
):
    away, crossings = [], 0
    for world in worlds:
        road = world.road
        if road.junction < np.inf:
            ends = [
                body.motion.positions[-1, 1]
                for body in world.bodies
                if body.kind != "pedestrian" and np.ptp(body.motion.headings) > 0.9
            ]
            away.append(min(abs(z - road.junction) for z in ends))
        if road.crossing < np.inf:
            crossings += 1
            walkers = [body.z for body in world.bodies if body.kind == "pedestrian"]
            assert min(abs(z - road.crossing) for z in walkers) < 1.5
    assert len(away) > 200 and np.median(away) < 2 and max(away) < 15
    assert crossings > 80


def test_nothing_stands_on_the_road_or_in_the_side_road(worlds):
    for world in worlds:
        road = world.road
        kerb = road.half_width + road.pavement
        for building in world.buildings:
            assert kerb + 0.8 <= building.setback <= kerb + 4.5
            assert 8 <= building.far - building.near <= 16
            assert building.near >= 3 and 7 <= building.depth <= 11
            assert 4.5 <= building.height <= (7 if building.gable else 17)
            apart = max(building.near - road.junction, road.junction - building.far)
            assert apart > 4.5
        for tree in world.trees:
            # trees stand square to the road where it was measured
            z = np.linspace(0, 120, 2401)
            points = np.stack([road.centre(z), z], -1)
            distance = np.hypot(*(points - (tree.x, tree.z)).T).min()
            assert distance > kerb + 0.55
            assert 3.8 <= tree.height <= 7
        for one, other in combinations(world.buildings, 2):
            if one.side == other.side:
                gap = max(one.near - other.far, other.near - one.far)
                assert gap >= 0.5
    sides = [b.side for world in worlds for b in world.buildings]
    assert share(sides, 1) == pytest.approx(0.5, abs=0.05)
    assert np.mean([len(world.trees) for world in worlds]) > 4


# --- anomalies ---


def test_anomalies_only_when_asked_for(worlds, odd_worlds):
    assert all(world.anomaly is None for world in worlds)
    kinds = {world.anomaly.kind for world in odd_worlds}
    assert kinds == set(ANOMALIES)


def test_anomalies_lie_before_us_on_the_road(odd_worlds):
    touching = 0
    for world in odd_worlds:
        thing, road = world.anomaly, world.road
        widths, heights = ANOMALIES[thing.kind]
        assert widths[0] <= thing.width <= widths[1]
        assert heights[0] <= thing.height <= heights[1]
        assert thing.kind != "ball" or thing.width == thing.height
        assert 5.5 < thing.z < 22.5
        lateral = float(road.lateral(thing.x, thing.z))
        assert -0.76 * road.lane_width < lateral < 0.76 * road.lane_width + 1.01
        gaps = [
            np.abs(body.motion.positions[NOW] - (thing.x, thing.z))
            - (body.width / 2, body.length / 2)
            for body in world.bodies
        ]
        touching += any((gap <= (1.6, 1.8)).all() for gap in gaps)
    assert touching <= 3  # where there is no room
    assert np.mean([w.anomaly.z for w in odd_worlds]) == pytest.approx(14, abs=1)


# --- all of it ---


def numbers(value) -> list[float]:
    """All numbers in a world, in the order of its fields."""
    if isinstance(value, str):
        return [float(sum(value.encode()))]
    if value is None:
        return [0.0]
    if isinstance(value, np.ndarray | tuple | list):
        return [n for item in value for n in numbers(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [
            n for f in value.__dataclass_fields__ for n in numbers(getattr(value, f))
        ]
    if isinstance(value, int):
        return [float(value % 1000)]
    return [min(max(float(value), -1e3), 1e3)]


def test_worlds_are_those_that_they_were(worlds, odd_worlds):
    """A pinned sum over all that is in some, to notice a change by accident."""
    sums = []
    for some in (worlds[:60], odd_worlds[:60]):
        parts = [np.array(numbers(world)) for world in some]
        sums.append(sum(part @ np.cos(np.arange(len(part))) for part in parts))
    assert sums == pytest.approx([57817.967650922845, 57400.519921026855], rel=1e-9)
