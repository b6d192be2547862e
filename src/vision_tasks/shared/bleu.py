"""BLEU: how many n-grams of generated sentences also stand in the true ones."""

import math
from collections import Counter
from collections.abc import Sequence


def bleu(
    candidates: Sequence[str], references: Sequence[Sequence[str]], order: int = 4
) -> float:
    """BLEU of a whole corpus (Papineni et al., 2002, https://aclanthology.org/P02-1040).

        BLEU = BP * exp(mean of log p_n for n = 1...order)

    p_n: the part of the candidates' n-grams found in a reference of the same image,
    each at most as often as the one reference that has it most; counted over the
    corpus and only then divided. BP: 1 if the candidates together are longer than the
    references, else exp(1 - reference length / candidate length), where each candidate
    is compared with its reference of the nearest length.

    candidates: one sentence for each image, words separated by spaces.
    references: for each image its true sentences, at least one.
    Returns a number from 0 to 1; 0 if some p_n is 0, as there is no smoothing.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError(
            f"{len(candidates)} candidates need as many groups of references, "
            f"none of them empty; got {len(references)}"
        )
    matches, totals = [0] * order, [0] * order
    length = reference_length = 0
    for candidate, group in zip(candidates, references, strict=True):
        words = candidate.split()
        truths = [reference.split() for reference in group]
        length += len(words)
        nearest = min(truths, key=lambda t: (abs(len(t) - len(words)), len(t)))
        reference_length += len(nearest)
        for n in range(1, order + 1):
            found = ngrams(words, n)
            allowed = Counter()
            for truth in truths:
                allowed |= ngrams(truth, n)  # the larger of the two counts
            matches[n - 1] += (found & allowed).total()  # the smaller of the two
            totals[n - 1] += found.total()
    if not all(matches):
        return 0.0
    logs = [math.log(m / t) for m, t in zip(matches, totals, strict=True)]
    brevity = min(1.0, math.exp(1 - reference_length / length))
    return brevity * math.exp(sum(logs) / order)


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each run of n words occurs."""
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))
