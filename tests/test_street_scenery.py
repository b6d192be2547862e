"""Shapes of things: where they are, which way they face, and what they are made of."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from src.vision_tasks.street.motion import TIMES, Motion
from src.vision_tasks.street.scenery import Scenery, Wall
from src.vision_tasks.street.vocabulary import OBJECT_CLASSES, SEMANTIC_CLASSES
from src.vision_tasks.street.world import ANOMALIES, Anomaly, Body, Building, Tree

SIZES = {
    "car": (1.8, 4.2, 1.5),
    "truck": (2.45, 7.0, 3.2),
    "bus": (2.5, 10.0, 3.0),
    "pedestrian": (0.62, 0.5, 1.8),
}
VEHICLES = ("car", "truck", "bus")
RED, LIT = (1.0, 0.12, 0.08), (1.0, 0.97, 0.85)


def body(kind: str, heading: float = 0.0, braking: bool = False, look=0.5) -> Body:
    count = len(TIMES)
    motion = Motion(np.tile((0.0, 20.0), (count, 1)), np.full(count, heading), braking)
    return Body(kind, "red", *SIZES[kind], motion, (look,) * 6)


def scenery_of(one: Body, lamps_on: bool = False) -> Scenery:
    scenery = Scenery(lamps_on)
    scenery.add_body(3, one)
    return scenery


def house(side: int, gable: bool) -> tuple[Building, np.ndarray]:
    wall, roof = (0.8, 0.7, 0.6), (0.5, 0.2, 0.1)
    look = (0.5, 0.5, 0.5)
    building = Building(10, 22, side, 8.0, 9.0, 7.5, gable, wall, roof, look)
    corners = np.array([(8.0 * side, 10), (8.0 * side, 22), (17.0 * side, 10)])
    return building, corners


def span(wall: Wall) -> float:
    return float(np.hypot(*np.subtract(wall.end, wall.start)))


def outward(wall: Wall, middle=(0.0, 0.0)) -> float:
    """How far the wall is before `middle` for who sees it: start left, end right."""
    (ax, az), (bx, bz) = wall.start, wall.end
    normal = np.array([bz - az, ax - bx]) / span(wall)
    return float(normal @ (np.array([ax + bx, az + bz]) / 2 - middle))


def shapes(scenery: Scenery):
    return [(wall, shape) for wall in scenery.walls for shape in wall.shapes]


def colour(scenery: Scenery, shape) -> tuple:
    return tuple(np.round(scenery.colours[shape.material], 9))


def inside(scenery: Scenery, tops: float) -> None:
    """All shapes are on their walls, and the highest is as high as it should be."""
    for wall, shape in shapes(scenery):
        assert -0.05 <= shape.left < shape.right <= span(wall) + 0.05
        assert shape.bottom < shape.top
    assert max(shape.top for _, shape in shapes(scenery)) == pytest.approx(tops)


# --- materials ---


def test_a_material_is_known_by_class_colour_shade_and_shine():
    scenery = Scenery(False)
    colour = (0.8, 0.4, 0.2)
    first = scenery.material("car", colour)
    assert scenery.material("car", colour) == first == 0
    assert scenery.material("bus", colour) == 1
    assert scenery.material("car", colour, 0.5) == 2
    assert scenery.material("car", colour, shining=True) == 3
    assert scenery.material("car", (0.8, 0.4, 0.3)) == 4
    assert scenery.material("bus", colour) == 1
    car, bus = map(SEMANTIC_CLASSES.index, ("car", "bus"))
    assert scenery.semantic == [car, bus, car, car, car]
    assert scenery.shining == [False, False, False, True, False]
    assert scenery.colours[2] == pytest.approx((0.4, 0.2, 0.1))
    assert scenery.colours[3] == colour


# --- bodies ---


@pytest.mark.parametrize("kind", OBJECT_CLASSES)
def test_a_body_is_within_its_measures_and_of_its_class(kind):
    width, length, height = SIZES[kind]
    scenery = scenery_of(body(kind))
    assert {wall.owner for wall in scenery.walls} == {3}
    ends = np.array([end for wall in scenery.walls for end in (wall.start, wall.end)])
    assert np.abs(ends[:, 0]).max() == pytest.approx(width / 2)
    if kind in VEHICLES:
        assert ends[:, 1].max() == pytest.approx(length / 2)
        assert ends[:, 1].min() == pytest.approx(-length / 2)
    inside(scenery, height)
    assert min(shape.bottom for _, shape in shapes(scenery)) == 0  # stands on it
    assert set(scenery.semantic) == {SEMANTIC_CLASSES.index(kind)}
    coats = [colour(scenery, shape) for _, shape in shapes(scenery)]
    assert (0.8, 0.08, 0.08) in coats  # the coat is red


@pytest.mark.parametrize("kind", VEHICLES)
def test_vehicles_are_boxes_seen_from_outside(kind):
    scenery = scenery_of(body(kind))
    boxes = [scenery.walls[i : i + 4] for i in range(0, len(scenery.walls), 4)]
    assert len(boxes) == (1 if kind == "bus" else 2)
    for rear, front, right, left in boxes:
        middle = np.mean([rear.start, front.start], 0)
        assert all(outward(wall, middle) > 0 for wall in (rear, front, right, left))
        assert rear.start[1] == rear.end[1] < front.start[1] == front.end[1]
        assert right.start[0] == right.end[0] == -left.start[0] > 0
        # what is on the left side is where it is on the right
        assert right.start[1] == rear.start[1] and left.start[1] == front.start[1]
        back = {
            (round(span(left) - s.right, 6), round(span(left) - s.left, 6), *s[3:])
            for s in left.shapes
        }
        assert back == {(round(s.left, 6), round(s.right, 6), *s[3:]) for s in right.shapes}  # fmt: skip  # noqa: E501


@pytest.mark.parametrize("kind", VEHICLES)
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("braking", [False, True])
def test_lights_of_vehicles(kind, on, braking):
    """White before, red behind; they glow when they are on, brake lights on top."""
    scenery = scenery_of(body(kind, braking=braking), on)
    width, length, _ = SIZES[kind]
    tails = [lamp for lamp in scenery.lamps if lamp.at[1] < 0]
    heads = [lamp for lamp in scenery.lamps if lamp.at[1] > 0]
    assert len(tails) == (2 if on or braking else 0) and len(heads) == 2 * on
    for lamps, place, tint in (
        (tails, -length / 2, (1.0, 0.1, 0.05)),
        (heads, length / 2, (1.0, 0.95, 0.8)),
    ):
        assert all(lamp.colour == tint and lamp.owner == 3 for lamp in lamps)
        assert all(0 < abs(lamp.at[1]) - abs(place) < 0.05 for lamp in lamps)
        assert sorted(np.sign(lamp.at[0]) for lamp in lamps) in ([], [-1, 1])
        assert all(0.5 < lamp.height < 1 for lamp in lamps)
        assert all(width / 2 - 0.4 < abs(lamp.at[0]) < width / 2 for lamp in lamps)
    strength = {(0, 0): [], (1, 0): 0.35, (0, 1): 0.42, (1, 1): 0.77}[on, braking]
    assert [lamp.strength for lamp in tails] == pytest.approx([strength] * len(tails))
    assert all(lamp.strength == 1 for lamp in heads)
    walls = Counter()
    for wall, shape in shapes(scenery):
        rear = wall.start[1] == wall.end[1] == pytest.approx(-length / 2)
        front = wall.start[1] == wall.end[1] == pytest.approx(length / 2)
        shines = scenery.shining[shape.material]
        walls["tail"] += rear and shines and colour(scenery, shape) == RED
        walls["head"] += front and shines and colour(scenery, shape) == LIT
        walls["off"] += rear and colour(scenery, shape) == (0.55, 0.04, 0.05)
    lit = on or braking
    assert walls == {"tail": 2 * lit, "head": 2 * on, "off": 2 - 2 * lit}


@pytest.mark.parametrize("lit", [False, True])
def test_a_bus_is_lit_inside_when_its_lamps_are_on(lit):
    scenery = scenery_of(body("bus"), lit)
    glass = [s for _, s in shapes(scenery) if s.figure == "panes"]
    assert [scenery.shining[shape.material] for shape in glass] == [lit, lit]
    assert all(shape.period == 1.3 and shape.taper == 0 for shape in glass)
    signs = [s for _, s in shapes(scenery) if colour(scenery, s) == (1.0, 0.72, 0.15)]
    assert len(signs) == 1 and scenery.shining[signs[0].material]


@pytest.mark.parametrize("heading", [0.0, 0.7, np.pi / 2, -2.5])
def test_pedestrians_face_the_camera_whichever_way_they_walk(heading):
    (wall,) = scenery_of(body("pedestrian", heading)).walls
    for (right, ahead), x in ((wall.start, -0.31), (wall.end, 0.31)):
        sine, cosine = np.sin(heading), np.cos(heading)
        assert right * cosine + ahead * sine == pytest.approx(x)
        assert ahead * cosine - right * sine == pytest.approx(0)


def test_looks_of_pedestrians_differ():
    looks = {}
    for look in (0.0, 0.25, 0.4, 0.99):
        scenery = scenery_of(body("pedestrian", look=look))
        looks[look] = [shape for _, shape in shapes(scenery)], scenery.colours
    assert len({repr(look) for look in looks.values()}) == 4
    lengths = [len(drawn) for drawn, _ in looks.values()]
    assert lengths == [15, 15, 14, 14]  # with a skirt, without


# --- buildings, trees ---


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("gable", [False, True])
def test_buildings_face_the_road_and_us(side, gable):
    building, corners = house(side, gable)
    scenery = Scenery(False)
    scenery.add_building(building, corners)
    ridge, front, end = scenery.walls
    assert front.owner == 0 and {front.start, front.end} == {
        (8.0 * side, 10.0),
        (8.0 * side, 22.0),
    }
    assert {end.start, end.end} == {(8.0 * side, 10.0), (17.0 * side, 10.0)}
    middle = (12.5 * side, 16)
    assert outward(front, middle) == pytest.approx(4.5)
    assert outward(end, middle) == pytest.approx(6)
    assert {ridge.start, ridge.end} == {(12.5 * side, 10.0), (12.5 * side, 22.0)}
    assert outward(ridge, (17.0 * side, 16)) > 0
    inside(scenery, 7.5 + (0.4 * 9 if gable else 0))
    assert bool(ridge.shapes) == gable
    assert set(scenery.semantic) == {SEMANTIC_CLASSES.index("building")}
    roofs = [s for _, s in shapes(scenery) if colour(scenery, s) == (0.5, 0.2, 0.1)]
    assert len(roofs) == 2 * gable
    # two storeys of windows on either wall, which do not shine by day
    for wall in (front, end):
        panes = [shape for shape in wall.shapes if shape.figure == "panes"]
        assert [(s.bottom, s.top) for s in panes] == [(1.1, 2.3), (4.1, 5.3)]
        assert {s.period for s in panes} == {2.4 + 0.45}


def test_three_of_four_buildings_have_light_in_the_dark():
    for lamps_on, look, lit in (
        (True, 0.74, True),
        (True, 0.76, False),
        (False, 0.1, False),
    ):
        building, corners = house(1, True)
        scenery = Scenery(lamps_on)
        scenery.add_building(replace(building, look=(look, 0.5, 0.5)), corners)
        panes = [s for s in scenery.walls[1].shapes if s.figure == "panes"]
        assert {scenery.shining[shape.material] for shape in panes} == {lit}


def test_a_wall_to_the_right_is_the_mirror_image_of_one_to_the_left():
    walls = []
    for side in (-1, 1):
        scenery = Scenery(False)
        building, corners = house(side, False)
        scenery.add_building(building, corners)
        walls.append(scenery.walls[1])
    left, right = walls
    for one, other in zip(left.shapes, right.shapes, strict=True):
        assert (12 - one.right, 12 - one.left) == pytest.approx(other[1:3])
        assert one[3:] == other[3:]


@pytest.mark.parametrize(
    "look, leaves, fir",
    [
        (0.1, (0.2, 0.4, 0.1), True),
        (0.3, (0.2, 0.4, 0.1), False),
        (0.1, (0.7, 0.4, 0.1), False),  # a fir is never brown
    ],
)
def test_trees(look, leaves, fir):
    scenery = Scenery(False)
    scenery.add_tree(Tree(3.0, 20.0, 6.0, leaves, (look,) * 8))
    (wall,) = scenery.walls
    wide = (0.6 + 0.25 * look) * 6
    assert wall.owner == 0
    assert wall.start == pytest.approx((3 - wide / 2, 20))
    assert wall.end == pytest.approx((3 + wide / 2, 20))
    figures = [shape.figure for shape in wall.shapes]
    assert figures == (["trapezoid"] * 4 if fir else ["trapezoid"] + ["ellipse"] * 5)
    assert 0.85 * 6 < max(shape.top for shape in wall.shapes) < 1.05 * 6
    assert wall.shapes[0].bottom == 0
    assert set(scenery.semantic) == {SEMANTIC_CLASSES.index("tree")}


def test_trees_far_away_hide_the_end_of_the_world():
    scenery = Scenery(False)
    scenery.add_far_trees(0.0, 110.0, 0.3)
    (wall,) = scenery.walls
    assert wall.start == (-80, 110) and wall.end == (80, 110)
    assert wall.shapes[0][:5] == ("rectangle", 0, 160, 0, 2.5)
    assert len(wall.shapes) == 12
    assert set(scenery.semantic) == {SEMANTIC_CLASSES.index("tree")}


# --- anomalies ---


def odd(kind: str, look: float) -> Scenery:
    scenery = Scenery(False)
    scenery.add_anomaly(
        Anomaly(kind, 2.0, 15.0, 2.2, 1.4, (0.4, 0.5, 0.6), (look,) * 8)
    )
    return scenery


@pytest.mark.parametrize("kind", sorted(set(ANOMALIES) - {"hole"}))
def test_anomalies_fill_their_measures(kind):
    scenery = odd(kind, 0.6)
    (wall,) = scenery.walls
    assert wall.start == pytest.approx((0.9, 15)) and wall.end == pytest.approx(
        (3.1, 15)
    )
    inside(scenery, 1.4)
    assert 0 <= min(shape.bottom for shape in wall.shapes) < 0.08
    assert min(shape.left for shape in wall.shapes) < 0.15
    assert max(shape.right for shape in wall.shapes) > 2.05
    assert set(scenery.semantic) == {SEMANTIC_CLASSES.index("obstacle")}
    assert (0.4, 0.5, 0.6) in [colour(scenery, shape) for shape in wall.shapes]
    (turned,) = odd(kind, 0.4).walls
    for one, other in zip(wall.shapes, turned.shapes, strict=True):
        assert (2.2 - one.right, 2.2 - one.left) == pytest.approx(other[1:3])
        assert one[3:] == other[3:]


def test_a_hole_is_not_upright():
    assert not odd("hole", 0.6).walls


# --- all of it ---


def total(scenery: Scenery) -> float:
    """A sum over all numbers, each with a weight of its own."""
    parts = [*np.ravel(scenery.colours), *scenery.semantic, *scenery.shining]
    for wall in scenery.walls:
        parts += [*wall.start, *wall.end, len(wall.shapes)]
        for shape in wall.shapes:
            parts += [sum(shape.figure.encode()), *shape[1:]]
    for lamp in scenery.lamps:
        parts += [*lamp.at, lamp.height, lamp.strength, *lamp.colour]
    return float(np.cos(np.arange(len(parts))) @ np.array(parts, float))


def everything():
    for kind in OBJECT_CLASSES:
        for lamps_on, look in ((False, 0.1), (True, 0.9)):
            yield scenery_of(body(kind, 0.3, lamps_on, look), lamps_on)
    for side, gable in ((-1, True), (1, False)):
        building, corners = house(side, gable)
        scenery = Scenery(True)
        scenery.add_building(building, corners)
        yield scenery
    for look in (0.1, 0.7):
        scenery = Scenery(False)
        scenery.add_tree(Tree(3.0, 20.0, 6.0, (0.2, 0.4, 0.1), (look,) * 8))
        scenery.add_far_trees(0.0, 110.0, look)
        yield scenery
    for kind in ANOMALIES:
        yield odd(kind, 0.8)


def test_things_look_as_they_did():
    """Pinned sums, to notice a change by accident."""
    sums = [total(scenery) for scenery in everything()]
    assert sums == pytest.approx(PINNED, rel=1e-9)


PINNED = [
    1299.968170276,
    1299.929715112,
    1255.658911519,
    1254.986381249,
    -1066.658182148,
    -858.020716938,
    -395.222637274,
    86.801442079,
    -3252.908321811,
    866.229569794,
    -1174.022020324,
    638.736044673,
    -183.262568766,
    -951.682665543,
    -1066.992553260,
    266.721755261,
    -332.447363027,
    -2.375637729,
    -1066.895515144,
    -958.392407280,
]
