"""One sentence about a scene, of which each word can be seen in the image."""

from collections.abc import Sequence

from src.vision_tasks.street.motion import Road
from src.vision_tasks.street.world import Weather

#: Bends with less curvature than this, in 1/m, are called straight.
BEND = 0.003
_NUMBERS = {1: "a", 2: "two", 3: "three"}
_PLURALS = {
    "car": "cars",
    "truck": "trucks",
    "bus": "buses",
    "pedestrian": "pedestrians",
}
_WEATHERS = {
    "clear": "on a sunny day",
    "overcast": "under a grey sky",
    "rain": "in the rain",
    "fog": "in fog",
    "dusk": "at dusk",
    "night": "at night",
}


def caption(
    kinds: Sequence[str],
    areas: Sequence[int],
    coat: str,
    middle: float,
    road: Road,
    weather: Weather,
) -> str:
    """kinds and areas in pixels: of the labelled objects, at least one.

    coat: the colour of the largest of them; middle: of its box, x in parts of the
    width of the image.
    """
    main = max(range(len(kinds)), key=areas.__getitem__)
    words = [_subject(kinds[main], coat), _position(middle)]
    words += _others(kinds, areas, main)
    wet = "wet " if weather.wet else ""
    if abs(road.curvature) < BEND:
        words.append(f"on a {wet}straight road")
    else:
        side = "right" if road.curvature > 0 else "left"
        words.append(f"on a {wet}road curving {side}")
    words.append(_WEATHERS[weather.name])
    return " ".join(words)


def _subject(kind: str, coat: str) -> str:
    return f"a pedestrian in {coat}" if kind == "pedestrian" else f"a {coat} {kind}"


def _position(middle: float) -> str:
    if middle < 0.4:
        return "on the left"
    return "on the right" if middle > 0.6 else "ahead"


def _others(kinds: Sequence[str], areas: Sequence[int], main: int) -> list[str]:
    """The most visible other class and how many of it, or more of the same class."""
    rest = [index for index in range(len(kinds)) if index != main]
    if not rest:
        return []
    others = [index for index in rest if kinds[index] != kinds[main]] or rest
    kind = kinds[max(others, key=areas.__getitem__)]
    count = sum(kinds[index] == kind for index in others)
    more = "more " if kind == kinds[main] else ""
    if count == 1:
        return [f"and one more {kind}" if more else f"and a {kind}"]
    return [f"and {_NUMBERS.get(count, 'several')} {more}{_PLURALS[kind]}"]
