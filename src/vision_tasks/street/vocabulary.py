"""What there is in a street scene, by name, and how its truths are laid out."""

#: What each value of `Scenes.semantic` stands for.
SEMANTIC_CLASSES = (
    "road",
    "lane marking",
    "pavement",
    "grass",
    "sky",
    "building",
    "tree",
    "car",
    "truck",
    "bus",
    "pedestrian",
    "obstacle",
)
#: What each value of `Scenes.labels` and `Scenes.main` stands for.
OBJECT_CLASSES = ("car", "truck", "bus", "pedestrian")
#: The lines of `Scenes.lanes`, and at which heights, as parts of the image's, they are
#: given: 24 rows from just under the horizon to the bottom.
LANE_LINES = ("left edge", "centre line", "right edge")
LANE_ROWS = tuple(0.54 + 0.46 * row / 23 for row in range(24))
#: At most so many objects of a scene are labelled.
MAX_OBJECTS = 8
#: Tracks: steps and seconds between them; the last of the past is the present.
PAST_STEPS, FUTURE_STEPS, STEP_SECONDS = 8, 12, 0.4
