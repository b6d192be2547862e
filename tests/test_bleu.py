"""BLEU on cases worked out by hand."""

import math

import pytest

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


def test_counts_are_summed_over_the_corpus_before_dividing():
    """A sentence without a match lowers the score; it does not make it 0."""
    value = bleu(["a b c d e", "v w x y z"], [["a b c d e"], ["k l m n o"]])
    assert value == pytest.approx(0.5)  # 5/10, 4/8, 3/6, 2/4


def test_no_run_of_four_is_zero():
    assert bleu(["a b c x d e f"], [["a b c y d e f"]]) == 0
    assert bleu([""], [["a b c d"]]) == 0


def test_numbers_must_fit():
    with pytest.raises(ValueError, match="2 candidates"):
        bleu(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="empty"):
        bleu(["a"], [[]])
