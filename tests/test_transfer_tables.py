"""Question 3's tables, each compared as a whole."""

import pytest

from src import mistake_remarks, transfer_tables
from src.analysis import Mistake
from src.common.project import FAST
from src.experiments import Point
from src.transfer_tables import (
    ablation_table,
    mistake_rows,
    mistake_table,
    size_table,
    sizes_ahead,
)

NAMES = ["ape", "bee", "cow"]
MISTAKES = [
    Mistake(7, predicted=1, true=0, probability=0.98765, true_probability=0.00123),
    Mistake(1718, predicted=0, true=2, probability=0.9, true_probability=0.05),
    Mistake(3, predicted=1, true=0, probability=0.8, true_probability=0.1),
]
FIRST = [Point(10, (0.4, 0.5)), Point(50, (0.6, 0.7)), Point(1000, (0.7, 0.72))]
SECOND = [Point(10, (0.3, 0.35)), Point(50, (0.6, 0.9)), Point(1000, (0.8, 0.73))]


@pytest.fixture(autouse=True)
def remarks(monkeypatch):
    """Hand-written remarks on two images, in both languages."""
    known = {"en": {7: "a tail", 1718: "fog"}, "he": {7: "זנב", 1718: "ערפל"}}
    monkeypatch.setattr(transfer_tables, "REMARKS", known)


def test_mistakes():
    assert mistake_rows(MISTAKES, NAMES, whole=True) == [
        ["7", "ape", "bee", "98.77%", "", "a tail"],
        ["1718", "cow", "ape", "90.00%", "ship, 3 of 5", "fog"],
        ["3", "ape", "bee", "80.00%", "", ""],
    ]


def test_mistakes_in_another_language_with_other_names_of_the_classes():
    assert mistake_rows(
        MISTAKES[1:2], NAMES, whole=True, name=str.upper, language="he"
    ) == [["1718", "COW", "APE", "90.00%", "SHIP, 3 מתוך 5", "ערפל"]]


def test_what_is_known_of_the_whole_set_is_not_said_of_a_sample():
    """There the same number belongs to another image."""
    rows = mistake_rows(MISTAKES, NAMES, whole=False)
    assert [row[0] for row in rows] == ["7", "1718", "3"]
    assert [row[4:] for row in rows] == [["", ""]] * 3
    assert mistake_rows.__kwdefaults__["whole"] == (not FAST)


def test_the_table_of_mistakes(monkeypatch):
    monkeypatch.setitem(mistake_rows.__kwdefaults__, "whole", True)
    assert mistake_table(MISTAKES[:2], NAMES) == (
        "| test image | true | predicted | probability | people say | we see |\n"
        "| :-- | :-- | :-- | --: | :-- | :-- |\n"
        "| 7 | ape | bee | 98.77% |  | a tail |\n"
        "| 1718 | cow | ape | 90.00% | ship, 3 of 5 | fog |"
    )


def test_remarks_are_the_same_images_in_both_languages():
    english, hebrew = mistake_remarks.REMARKS["en"], mistake_remarks.REMARKS["he"]
    assert list(english) == list(hebrew)
    for index in english:
        assert 0 <= index < 10_000
        for text in (english[index], hebrew[index]):
            assert text.strip() == text != "" and "|" not in text  # a cell of a table
        assert any("א" <= letter <= "ת" for letter in hebrew[index])


def test_sizes():
    once = [Point(5000, (0.86,))], [Point(5000, (0.9,))]
    assert size_table({"n": FIRST[:1] + once[0], "m": SECOND[:1] + once[1]}) == (
        "| images a class | n | m |\n"
        "| :-- | --: | --: |\n"
        "| 10 | 40.0% and 50.0% | 30.0% and 35.0% |\n"
        "| 5,000 | 86.0% | 90.0% |"
    )


def test_ahead_is_who_is_ahead_with_every_seed():
    """At 50 the means differ, but not every seed: nobody is ahead."""
    assert sizes_ahead(FIRST, SECOND) == ([10], [1000])
    assert sizes_ahead(SECOND, FIRST) == ([1000], [10])
    assert sizes_ahead(FIRST, FIRST) == ([], [])
    touching = [Point(10, (0.5, 0.6))], [Point(10, (0.4, 0.5))]
    assert sizes_ahead(*touching) == ([], [])  # equal is not above


def test_curves_must_have_the_same_sizes():
    with pytest.raises(ValueError, match="shorter"):
        sizes_ahead(FIRST, SECOND[:2])


def test_the_ablation_is_told_against_its_first_row():
    accuracies = {"as it is": (0.8, 0.81), "no shift": (0.75, 0.762), "more": (0.9, 1)}
    assert ablation_table(accuracies) == (
        "| training | seed 1 | seed 2 | mean | difference |\n"
        "| :-- | --: | --: | --: | --: |\n"
        "| as it is | 80.0% | 81.0% | 80.5% | +0.0 |\n"
        "| no shift | 75.0% | 76.2% | 75.6% | -4.9 |\n"
        "| more | 90.0% | 100.0% | 95.0% | +14.5 |"
    )
