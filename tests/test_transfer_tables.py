"""Question 3's rows of tables, each compared as a whole."""

import pytest

from src.analysis import Mistake
from src.data_efficiency import Point
from src.transfer_tables import confusions, mistake_rows, size_rows, sizes_ahead

CLASSES = ["ape", "bee", "cow"]
MISTAKES = [
    Mistake(7, predicted=1, true=0, probability=0.98765, true_probability=0.00123),
    Mistake(1234, predicted=0, true=2, probability=0.9, true_probability=0.05),
    Mistake(3, predicted=1, true=0, probability=0.8, true_probability=0.1),
]
FIRST = [Point(10, (0.4, 0.5)), Point(50, (0.6,)), Point(1000, (0.7, 0.7, 0.1))]
SECOND = [Point(10, (0.3,)), Point(50, (0.6,)), Point(1000, (0.81,))]


def test_mistakes():
    assert mistake_rows(MISTAKES, CLASSES, {1234: ("bee", 4)}) == [
        ["7", "ape", "bee", "98.77%", "0.12%", "–"],
        ["1234", "cow", "ape", "90.00%", "5.00%", "bee (4)"],
        ["3", "ape", "bee", "80.00%", "10.00%", "–"],
    ]


def test_every_name_of_a_class_can_be_another():
    assert mistake_rows(MISTAKES[1:2], CLASSES, {1234: ("bee", 5)}, str.upper) == [
        ["1234", "COW", "APE", "90.00%", "5.00%", "BEE (5)"]
    ]
    assert mistake_rows(MISTAKES[1:2], CLASSES, {})[0][5] == "–"


def test_confusions_are_pairs_of_true_and_predicted():
    assert confusions(MISTAKES) == [((0, 1), 2), ((2, 0), 1)]


def test_sizes():
    assert size_rows(FIRST, SECOND) == [
        ["10", "2", "45.0%", "30.0%"],
        ["50", "1", "60.0%", "60.0%"],
        ["1,000", "3", "50.0%", "81.0%"],
    ]
    assert sizes_ahead(FIRST, SECOND) == ([10, 50], [1000])
    assert sizes_ahead(SECOND, FIRST) == ([50, 1000], [10])


@pytest.mark.parametrize("function", [size_rows, sizes_ahead])
def test_curves_must_have_the_same_sizes(function):
    with pytest.raises(ValueError, match="shorter"):
        function(FIRST, SECOND[:2])
