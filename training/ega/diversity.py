"""How different the captions of one image are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from training.ega.metrics import bleu

LONGEST = 4
"""Words of the longest n-grams."""


@dataclass(frozen=True)
class Diversity:
    """Means over images, 0 to 1."""

    distinct_1: float
    """Different words over all words of an image's captions ("div-1", Shetty et al. 2017)."""
    distinct_2: float
    """Different pairs of words over all words."""
    m_bleu4: float
    """BLEU-4 of each caption against the image's others; less is more diverse."""
    self_cider: float
    """0 where all captions are equal, 1 where they share nothing (Wang and Chan 2019)."""


def diversity(captions: Sequence[Sequence[Sequence[str]]], references: Sequence[Sequence[str]]) -> Diversity | None:
    """Diversity of several captions of each image.

    Args:
        captions: for each image the words of its captions; images with fewer than two are left out.
        references: any sets of reference captions, words between blanks; they say how common words are.

    Returns:
        None when no image has two captions.
    """
    weigh = _Weights(references)
    several = [said for said in captions if len(said) > 1]
    if not several:
        return None
    return Diversity(
        distinct_1=fmean(_distinct(said, 1) for said in several),
        distinct_2=fmean(_distinct(said, 2) for said in several),
        m_bleu4=fmean(_m_bleu(said) for said in several),
        self_cider=fmean(self_cider(weigh.kernel(said)) for said in several),
    )


def self_cider(kernel: NDArray[np.float64]) -> float:
    """-log_m of the share of the largest singular value, for the kernel (m, m), m >= 2, of CIDEr between captions.

    The singular values of the captions' vectors are the roots of the kernel's eigenvalues.
    """
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(kernel), 0, None))
    if not roots.sum():
        return 0.0  # captions without words
    return float(-math.log(roots.max() / roots.sum()) / math.log(len(kernel)))


class _Weights:
    """Weighs n-grams by how few sets of references have them, as CIDEr does."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self._sets = len(references)
        self._having: Counter[tuple[str, ...]] = Counter()
        for said in references:
            self._having.update({gram for text in said for n in range(LONGEST) for gram in _grams(text.split(), n + 1)})

    def kernel(self, captions: Sequence[Sequence[str]]) -> NDArray[np.float64]:
        """(m, m): cosines of the captions' weighted n-grams, mean over their lengths."""
        kernel = np.zeros((len(captions), len(captions)))
        for n in range(1, LONGEST + 1):
            counts = [Counter(_grams(words, n)) for words in captions]
            places = {gram: k for k, gram in enumerate(dict.fromkeys(gram for c in counts for gram in c))}
            vectors = np.zeros((len(captions), max(1, len(places))))
            for row, count in enumerate(counts):
                for gram, often in count.items():
                    # As if one more set had it: what all have keeps some weight, what none has is finite.
                    vectors[row, places[gram]] = often * math.log((self._sets + 2) / (self._having[gram] + 1))
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
            kernel += vectors @ vectors.T / LONGEST
        return kernel


def _distinct(captions: Sequence[Sequence[str]], n: int) -> float:
    words = sum(map(len, captions))
    return len({gram for said in captions for gram in _grams(said, n)}) / words if words else 0.0


def _m_bleu(captions: Sequence[Sequence[str]]) -> float:
    texts = [" ".join(words) for words in captions]
    return bleu(captions, [texts[:k] + texts[k + 1 :] for k in range(len(texts))])[3] / 100


def _grams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
