"""Words and their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from saaa.errors import DataError

BOS = 0
"""Starts every caption; never produced."""
EOS = 1
"""Ends every caption."""
UNK = 2
"""Stands for a word outside the vocabulary in training; never produced."""
SPECIAL = 3
"""How many ids are not words."""


@dataclass(frozen=True)
class Vocabulary:
    """Words in the order of their ids; the first three are the markers BOS, EOS and UNK.

    Raises:
        DataError: if there is no word, a word is empty or holds white space, or one occurs twice.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.words) <= SPECIAL:
            raise DataError("The vocabulary holds no word; it must list BOS, EOS, UNK and then words.")
        for index, word in enumerate(self.words):
            if not word or word.split() != [word]:
                raise DataError(f"Word {index} of the vocabulary is {word!r}; words are without white space.")
        if len(self.ids) < len(self.words):
            twice = next(w for i, w in enumerate(self.words) if self.ids[w] != i)
            raise DataError(f"The vocabulary holds {twice!r} twice.")

    @cached_property
    def ids(self) -> dict[str, int]:
        """Id of each word."""
        return {word: index for index, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str, max_tokens: int) -> tuple[int, ...]:
        """BOS, the ids of a caption's words (UNK where unknown) and EOS, cut to `max_tokens` (EOS then lost).

        Words are split at white space and taken as they are: published captions are already lower case and
        tokenised.
        """
        words = (self.ids.get(word, UNK) for word in caption.split())
        return (BOS, *words, EOS)[:max_tokens]

    def decode(self, ids: Iterable[int]) -> tuple[str, ...]:
        """The words of `ids` up to the first EOS."""
        words: list[str] = []
        for index in ids:
            if index == EOS:
                break
            words.append(self.words[index])
        return tuple(words)

    @classmethod
    def of(cls, captions: Iterable[str], markers: Sequence[str] = ("BOS", "EOS", "UNK")) -> Vocabulary:
        """A vocabulary of every word of `captions`, in alphabetical order after the markers."""
        return cls((*markers, *sorted({word for caption in captions for word in caption.split()} - set(markers))))
