"""Street scenes with exact ground truth for all twelve tasks: drawn here, not photos.

A scene is a function of its seed, its number, its size and the chance of an anomaly.
Camera: a pinhole at height 1.5 m, looking along the road; the image's focal length is
its own width (a field of view of 53°). Coordinates on the ground, in metres, seen from
the camera: X to the right, Z ahead.
"""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from src.common.kept import State, kept, make_key
from src.common.progress import LiveLog
from src.common.project import CACHE, SEED
from src.vision_tasks.street.captions import caption
from src.vision_tasks.street.motion import Road
from src.vision_tasks.street.rendering import View, build_scenery, render, true_flow
from src.vision_tasks.street.scenery import Scenery
from src.vision_tasks.street.vocabulary import (
    FUTURE_STEPS,
    LANE_ROWS,
    MAX_OBJECTS,
    OBJECT_CLASSES,
    PAST_STEPS,
    SEMANTIC_CLASSES,
)
from src.vision_tasks.street.world import CAMERA_HEIGHT, World, sample_world

#: Scenes of each split unless told otherwise. Only "anomalies" holds any: in half.
SPLITS = {"train": 4000, "validation": 400, "test": 600, "anomalies": 600}
#: An object is labelled if at least this part of the image's pixels shows it.
MIN_SEEN = 0.0012
#: An anomaly covers at least this part of the image's pixels.
MIN_ANOMALY = 0.003


@dataclass(frozen=True)
class Scenes:
    """N scenes of S x S pixels, with the truth for every task; index them as a tensor.

    Objects (cars, trucks, buses, pedestrians) are in order from near to far; up to
    M = MAX_OBJECTS of them, those of which enough is seen, have a label, a box and a
    number in `instances`. Padding: label -1, box and track 0.
    """

    images: Tensor  # uint8 [N, 3, S, S]
    next_images: Tensor  # uint8 [N, 3, S, S]: 0.1 s later
    flow: (
        Tensor  # float32 [N, 2, S, S]: where each pixel moves, (right, down), in pixels
    )
    depth: Tensor  # float32 [N, 1, S, S]: along the optical axis, in metres; 0: sky
    semantic: Tensor  # uint8 [N, S, S]: index into SEMANTIC_CLASSES
    instances: Tensor  # uint8 [N, S, S]: k where object k - 1 is seen, else 0
    boxes: Tensor  # float32 [N, M, 4]: (left, top, right, bottom) of what is seen of it
    labels: Tensor  # int64 [N, M]: index into OBJECT_CLASSES, or -1
    main: Tensor  # int64 [N]: the label of the object of which most pixels are seen
    lanes: Tensor  # float32 [N, 3, 24]: x in pixels at LANE_ROWS; nan outside the image
    past: Tensor  # float32 [N, M, PAST_STEPS, 2]: (X, Z), in the present camera's frame
    future: Tensor  # float32 [N, M, FUTURE_STEPS, 2]
    anomaly: Tensor  # bool [N, S, S]: what does not belong on a road
    captions: tuple[str, ...]  # N of them, lower case, words separated by one space

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice | Tensor | list) -> "Scenes":
        """The chosen scenes: a slice, integer indices or a boolean mask."""
        if isinstance(index, int):
            raise TypeError(f"index scenes by a slice or a list, e.g. [{index}]")
        if isinstance(index, list):
            index = torch.tensor(index, dtype=None if index else torch.int64)
        chosen = torch.arange(len(self))[index].tolist()
        values = {
            field.name: getattr(self, field.name)[index]
            for field in fields(self)
            if field.name != "captions"
        }
        return Scenes(**values, captions=tuple(self.captions[i] for i in chosen))


def make_scenes(
    count: int, seed: int, size: int = 96, anomalies: float = 0.0, first: int = 0
) -> Scenes:
    """Scenes number `first` to `first + count - 1` of a seed, S = size pixels.

    anomalies: the probability that there is one in a scene. Scene i depends only on
    (seed, i, size, anomalies).
    """
    _check(count, size, anomalies)
    scenes = [
        _make_scene(np.random.default_rng([seed, index]), size, anomalies)
        for index in range(first, first + count)
    ]
    values = {
        name: torch.from_numpy(np.stack([scene[name] for scene in scenes]))
        for name in _TENSORS
    }
    return Scenes(**values, captions=tuple(scene["captions"] for scene in scenes))


def load_scenes(
    split: str,
    count: int | None = None,
    size: int = 96,
    *,
    log: LiveLog | None = None,
    workers: int | None = None,
    folder: Path = CACHE,
) -> Scenes:
    """A split, a key of SPLITS, drawn once and kept in `folder`; its tensors are mapped
    from the file, so that only what is used of them is read.

    count: SPLITS[split] unless given. workers: processes that draw, one per core unless
    given; 0 draws in this process.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; choose one of {', '.join(SPLITS)}")
    count = SPLITS[split] if count is None else count
    anomalies = 0.5 if split == "anomalies" else 0.0
    _check(count, size, anomalies)
    seed = 1000 * SEED + list(SPLITS).index(split)
    key = make_key(
        count=count, seed=seed, size=size, anomalies=anomalies, code=[make_scenes]
    )

    def draw() -> State:
        shown = log or LiveLog()
        scenes = _draw(count, seed, size, anomalies, split, shown, workers)
        state = {name: getattr(scenes, name) for name in _TENSORS}
        return state | {"captions": list(scenes.captions)}

    state = kept(f"scenes-{split}-{count}", key, draw, folder=folder, mmap=True)
    return Scenes(**{**state, "captions": tuple(state["captions"])})


_TENSORS = [field.name for field in fields(Scenes) if field.name != "captions"]
_CHUNK = 50


def _check(count: int, size: int, anomalies: float) -> None:
    if count < 1:
        raise ValueError(f"count is {count}; ask for at least 1 scene")
    if size < 32:
        raise ValueError(f"size is {size}; choose at least 32 pixels")
    if not 0 <= anomalies <= 1:
        raise ValueError(f"anomalies is {anomalies}; give a probability from 0 to 1")


def _make_scene(
    rng: np.random.Generator, size: int, anomalies: float
) -> dict[str, np.ndarray | str]:
    """One scene, by the names of Scenes' fields; drawn anew until it is a good one:
    with a labelled object, and the anomaly, if there is one, well seen."""
    anomaly = rng.random() < anomalies
    while True:
        world = sample_world(rng, anomaly)
        scenery = build_scenery(world)
        view = render(world, scenery, size, 0)
        seen = np.bincount(view.owner.ravel(), minlength=len(world.bodies) + 1)[1:]
        odd = view.semantic == SEMANTIC_CLASSES.index("obstacle")
        labelled = (seen >= MIN_SEEN * size**2).any()
        if labelled and (not anomaly or odd.mean() >= MIN_ANOMALY):
            return _describe(rng, world, scenery, view, seen)


def _describe(
    rng: np.random.Generator,
    world: World,
    scenery: Scenery,
    view: View,
    seen: np.ndarray,
) -> dict[str, np.ndarray | str]:
    """All truths of one scene. seen: pixels that show each body, [B]."""
    size = len(view.depth)
    order = sorted(
        (i for i in range(len(seen)) if seen[i] >= MIN_SEEN * size**2),
        key=lambda i: -seen[i],
    )[:MAX_OBJECTS]
    order.sort(key=lambda i: world.bodies[i].z)

    number_of = np.zeros(len(seen) + 1, np.uint8)
    boxes = np.zeros((MAX_OBJECTS, 4), np.float32)
    labels = np.full(MAX_OBJECTS, -1, np.int64)
    past = np.zeros((MAX_OBJECTS, PAST_STEPS, 2), np.float32)
    future = np.zeros((MAX_OBJECTS, FUTURE_STEPS, 2), np.float32)
    for number, index in enumerate(order):
        body = world.bodies[index]
        number_of[index + 1] = number + 1
        rows, columns = np.nonzero(view.owner == index + 1)
        boxes[number] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        labels[number] = OBJECT_CLASSES.index(body.kind)
        past[number], future[number] = body.motion.track(rng)

    areas = [int(seen[i]) for i in order]
    main = int(np.argmax(areas))
    return {
        "images": view.image.transpose(2, 0, 1),
        "next_images": render(world, scenery, size, 1).image.transpose(2, 0, 1),
        "flow": true_flow(world, view),
        "depth": np.where(np.isinf(view.depth), 0, view.depth)[None],
        "semantic": view.semantic,
        "instances": number_of[view.owner],
        "boxes": boxes,
        "labels": labels,
        "main": labels[main],
        "lanes": _lanes(world.road, size),
        "past": past,
        "future": future,
        "anomaly": view.semantic == SEMANTIC_CLASSES.index("obstacle"),
        "captions": caption(
            [world.bodies[i].kind for i in order],
            areas,
            world.bodies[order[main]].coat,
            float(boxes[main, [0, 2]].mean()) / size,
            world.road,
            world.weather,
        ),
    }


def _lanes(road: Road, size: int) -> np.ndarray:
    """float32 [3, 24]: x of each line at LANE_ROWS, nan outside the image."""
    z = CAMERA_HEIGHT / (np.array(LANE_ROWS) - 0.5)
    sides = (-road.lane_width, 0.0, road.lane_width)
    x = np.stack([road.edge(z, side) / z for side in sides]) * size + size / 2
    return np.where((x >= 0) & (x < size), x, np.nan).astype(np.float32)


def _draw(
    count: int,
    seed: int,
    size: int,
    anomalies: float,
    split: str,
    log: LiveLog,
    workers: int | None,
) -> Scenes:
    starts = range(0, count, _CHUNK)
    chunk = partial(_draw_chunk, count, seed, size, anomalies)
    workers = (os.cpu_count() or 1) if workers is None else workers
    workers = min(workers, len(starts))
    if workers < 1:
        return _join(log.track(map(chunk, starts), f"{split} scenes", len(starts)))
    # "spawn", because a fork of a process that uses torch's threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        try:
            chunks = pool.map(chunk, starts)
            return _join(log.track(chunks, f"{split} scenes", len(starts)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _draw_chunk(count: int, seed: int, size: int, anomalies: float, first: int) -> dict:
    """Arrays rather than tensors, which would share memory between processes."""
    scenes = make_scenes(min(_CHUNK, count - first), seed, size, anomalies, first)
    arrays = {name: getattr(scenes, name).numpy() for name in _TENSORS}
    return {**arrays, "captions": scenes.captions}


def _join(chunks: Iterator[dict]) -> Scenes:
    parts = list(chunks)
    values = {}
    for name in _TENSORS:
        # popped, so that no more than one field is in memory twice
        values[name] = torch.from_numpy(np.concatenate([p.pop(name) for p in parts]))
    return Scenes(**values, captions=sum((p["captions"] for p in parts), ()))
