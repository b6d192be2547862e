"""BLEU on cases worked out by hand, and against torchmetrics."""

import math
import random

import pytest
from torchmetrics.functional.text import bleu_score

from src.vision_tasks.shared.bleu import bleu


def test_equal_sentences_score_one():
    sentence = "a red car on a wet road"
    assert bleu([sentence], [[sentence]]) == pytest.approx(1)


def test_counts_are_clipped():
    """Papineni's example: seven times "the", of which the reference has two."""
    candidate = "the the the the the the the"
    references = [["the cat is on the mat", "there is a cat on the mat"]]
    assert bleu([candidate], references, order=1) == pytest.approx(2 / 7)


def test_all_four_orders():
    """One wrong word of six: 5/6 words, 4/5 pairs, 3/4 triples, 2/3 runs of four."""
    value = bleu(["a b c d e x"], [["a b c d e f"]])
    assert value == pytest.approx((5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25)


def test_short_sentences_pay():
    """All n-grams are right, but there are 4 words instead of 6."""
    assert bleu(["a b c d"], [["a b c d e f"]]) == pytest.approx(math.exp(1 - 6 / 4))
    # With a second, nearer reference there is nothing to pay.
    assert bleu(["a b c d"], [["a b c d e f", "a b c d"]]) == pytest.approx(1)
    # Of two that are equally near, the shorter counts; longer sentences gain nothing.
    assert bleu(["a b c d"], [["a b c d e", "a b c"]]) == pytest.approx(1)
    assert bleu(["a b c d e"], [["a b c d e", "a"]]) == pytest.approx(1)
    # Lengths, too, are summed over the corpus.
    value = bleu(["a b c d", "a b c d e f"], [["a b c d e f"], ["a b c d e f"]])
    assert value == pytest.approx(math.exp(1 - 12 / 10))
    value = bleu(["a b c d", "a b c d e f"], [["a b c d e f"], ["a b c d", "a b"]])
    assert value == pytest.approx((8 / 10 * 6 / 8 * 4 / 6 * 2 / 4) ** 0.25)


def test_counts_are_summed_over_the_corpus_before_dividing():
    """A sentence without a match lowers the score; it does not make it 0."""
    value = bleu(["a b c d e", "v w x y z"], [["a b c d e"], ["k l m n o"]])
    assert value == pytest.approx(0.5)  # 5/10, 4/8, 3/6, 2/4


def test_no_run_of_four_is_zero():
    assert bleu(["a b c x d e f"], [["a b c y d e f"]]) == 0
    assert bleu(["a b c x d e f"], [["a b c y d e f"]], order=3) > 0
    assert bleu([""], [["a b c d"]]) == 0
    assert bleu(["a b c"], [["a b c"]]) == 0  # too short for one
    assert bleu([], []) == 0


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("lengths", [(2, 6), (5, 9), (6, 14)])  # of the candidates
def test_random_corpora_score_what_torchmetrics_gives_them(order, lengths):
    """References from short to long: of two equally near, torchmetrics takes the first.

    The tolerance is that of its float32.
    """
    drawn = random.Random(str((order, lengths)))

    def sentence(shortest: int, longest: int) -> str:
        return " ".join(drawn.choices("abc", k=drawn.randint(shortest, longest)))

    candidates = [sentence(*lengths) for _ in range(12)]
    references = [
        sorted((sentence(4, 10) for _ in range(drawn.randint(1, 4))), key=len)
        for _ in candidates
    ]
    expected = bleu_score(candidates, references, n_gram=order).item()
    assert 0.05 < expected < 0.999
    assert bleu(candidates, references, order) == pytest.approx(expected, rel=1e-5)


def test_numbers_must_fit():
    with pytest.raises(ValueError, match=r"2 candidates need.* got 1$"):
        bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match=r"1 candidates need.* none of them empty"):
        bleu(["a"], [[]])
