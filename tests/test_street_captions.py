"""Captions, as whole sentences."""

import pytest

from src.vision_tasks.street.captions import BEND, caption
from src.vision_tasks.street.motion import Road
from src.vision_tasks.street.world import Weather


def say(
    kinds="car",
    areas=(9,),
    coat="red",
    middle=0.5,
    curvature=0.0,
    weather="clear",
    wet=False,
) -> str:
    light = (1.0, 1.0, 1.0)
    return caption(
        kinds.split(),
        areas,
        coat,
        middle,
        Road(0.0, 0.0, curvature, 3.5, 0.35, 2.0),
        Weather(weather, light, light, light, wet=wet),
    )


@pytest.mark.parametrize(
    "kinds, areas, subject",
    [
        ("car", [5], "a red car ahead"),
        ("pedestrian", [5], "a pedestrian in red ahead"),
        # the largest is described, wherever it stands in the list, then another class
        ("car bus truck", [5, 9, 6], "a red bus ahead and a truck"),
        ("car bus truck", [7, 9, 6], "a red bus ahead and a car"),
        ("bus bus", [5, 9], "a red bus ahead and one more bus"),
        ("car pedestrian pedestrian", [9, 2, 3], "a red car ahead and two pedestrians"),
        # of several other classes the one that shows the largest, and all of it
        (
            "truck car bus car car",
            [99, 1, 5, 1, 8],
            "a red truck ahead and three cars",
        ),
        ("car car car bus", [9, 8, 7, 1], "a red car ahead and a bus"),
        ("car car car", [9, 8, 7], "a red car ahead and two more cars"),
        ("bus bus bus bus", [9, 8, 7, 1], "a red bus ahead and three more buses"),
        ("car" + 4 * " bus", [9, 1, 1, 1, 1], "a red car ahead and several buses"),
        ("car " * 5, [9, 1, 1, 1, 1], "a red car ahead and several more cars"),
        ("car bus", [4, 4], "a red car ahead and a bus"),  # a tie: the first
    ],
)  # fmt: skip
def test_what_a_caption_is_about(kinds, areas, subject):
    expected = f"{subject} on a straight road on a sunny day"
    assert say(kinds, areas) == expected


@pytest.mark.parametrize(
    "middle, where",
    [
        (0.0, "on the left"),
        (0.399, "on the left"),
        (0.4, "ahead"),
        (0.6, "ahead"),
        (0.601, "on the right"),
    ],
)
def test_where_the_subject_is(middle, where):
    expected = f"a blue bus {where} on a straight road on a sunny day"
    assert say("bus", coat="blue", middle=middle) == expected


@pytest.mark.parametrize("wet", [False, True])
@pytest.mark.parametrize(
    "curvature, road",
    [
        (0.0, "{}straight road"),
        (0.0029, "{}straight road"),
        (-0.0029, "{}straight road"),
        (0.003, "{}road curving right"),
        (-0.003, "{}road curving left"),
        (-0.016, "{}road curving left"),
    ],
)
def test_the_road(curvature, road, wet):
    expected = f"a red car ahead on a {road.format('wet ' if wet else '')} at night"
    assert say(curvature=curvature, weather="night", wet=wet) == expected
    assert BEND == 0.003


@pytest.mark.parametrize(
    "name, words",
    [
        ("clear", "on a sunny day"),
        ("overcast", "under a grey sky"),
        ("rain", "in the rain"),
        ("fog", "in fog"),
        ("dusk", "at dusk"),
        ("night", "at night"),
    ],
)
def test_the_weather(name, words):
    assert say(weather=name) == f"a red car ahead on a straight road {words}"
