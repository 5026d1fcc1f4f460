"""What each word of a caption does: names, describes, relates or only holds the sentence together."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from training.asg.categories import COMPOUNDS
from training.asg.lemmas import is_plural, singular, verb_base
from training.asg.lexicon import (
    ADJECTIVES,
    ANIMATE,
    AUXILIARIES,
    BREAKS,
    COLLECTIVES,
    CONJUNCTIONS,
    DETERMINERS,
    FILLERS,
    NUMBERS,
    PARTICLES,
    PARTS,
    PHRASES,
    PREPOSITIONS,
    PRONOUNS,
    RELATIVES,
)


class Tag(enum.Enum):
    """The role of a word or phrase."""

    NOUN = enum.auto()
    ADJECTIVE = enum.auto()
    NUMBER = enum.auto()
    DETERMINER = enum.auto()
    PREPOSITION = enum.auto()
    VERB = enum.auto()
    AUXILIARY = enum.auto()
    AND = enum.auto()
    COMMA = enum.auto()
    BREAK = enum.auto()
    RELATIVE = enum.auto()
    PRONOUN = enum.auto()
    POSSESSIVE = enum.auto()
    SKIPPED = enum.auto()


@dataclass(frozen=True)
class Word:
    """A word or a fixed phrase of a caption."""

    text: str
    tag: Tag
    base: str = ""
    """Verbs: the base form."""


_FIXED = {tuple(words.split()): Tag.PREPOSITION for p in PHRASES for words in (p, p.replace(" the ", " "))} | {
    tuple(c.split()): Tag.NOUN for c in COMPOUNDS
}
_LONGEST = max(len(words) for words in _FIXED)
_CLOSED = {
    **dict.fromkeys(PREPOSITIONS, Tag.PREPOSITION),
    **dict.fromkeys(DETERMINERS, Tag.DETERMINER),
    **dict.fromkeys(NUMBERS, Tag.NUMBER),
    **dict.fromkeys(PRONOUNS, Tag.PRONOUN),
    **dict.fromkeys(RELATIVES, Tag.RELATIVE),
    **dict.fromkeys(CONJUNCTIONS, Tag.AND),
    **dict.fromkeys(BREAKS, Tag.BREAK),
    **dict.fromkeys(AUXILIARIES, Tag.AUXILIARY),
    **dict.fromkeys(FILLERS, Tag.SKIPPED),
    ",": Tag.COMMA,
    "'s": Tag.POSSESSIVE,
}
NOUNS_IN_LY = frozenset({"fly", "family", "belly", "jelly", "ally", "butterfly", "grizzly", "curly", "lovely"})
BEFORE_NOUN = frozenset({Tag.DETERMINER, Tag.ADJECTIVE, Tag.NUMBER, Tag.POSSESSIVE})


def tag(tokens: Sequence[str]) -> list[Word]:
    """Give every token its role; fixed phrases become one word.

    Args:
        tokens: as `training.asg.lemmas.tokens` makes them.
    """
    found: list[Word] = []
    place = 0
    while place < len(tokens):
        word, used = _next(tokens, place, found)
        found.append(word)
        place += used
    return found


def _next(tokens: Sequence[str], place: int, before: Sequence[Word]) -> tuple[Word, int]:
    """The word that begins at `place`, and how many tokens it has."""
    for length in range(min(_LONGEST, len(tokens) - place), 1, -1):
        if kind := _FIXED.get(tuple(tokens[place : place + length])):
            return Word(" ".join(tokens[place : place + length]), kind), length
    token = tokens[place]
    following = tokens[place + 1] if place + 1 < len(tokens) else ""
    if token in COLLECTIVES and following == "of" and (token not in PARTS or not _names(tokens, place + 2)):
        kind = Tag.ADJECTIVE if token in ("group", "pair") else Tag.SKIPPED
        return Word(f"{token} of", kind), 2
    if token == "to" and _is_verb(following):
        return Word(token, Tag.SKIPPED), 1
    if token in _CLOSED:
        return Word(token, _CLOSED[token]), 1
    if token.isdigit():
        return Word(token, Tag.NUMBER), 1
    previous = before[-1] if before else None
    if token in PARTICLES:
        return Word(token, Tag.PREPOSITION if previous and previous.tag is Tag.VERB else Tag.SKIPPED), 1
    if token.endswith("ly") and token not in NOUNS_IN_LY:
        return Word(token, Tag.SKIPPED), 1
    if (base := verb_base(token)) is not None and _acts(token, base, previous, following):
        return Word(token, Tag.VERB, base), 1
    described = previous is not None and previous.tag is Tag.AUXILIARY and token.endswith("ed")
    if (
        token in ADJECTIVES
        or described
        or (base is not None and token.endswith(("ing", "ed")) and _names_token(following))
    ):
        return Word(token, Tag.ADJECTIVE), 1
    return Word(token, Tag.NOUN), 1


def _acts(token: str, base: str, previous: Word | None, following: str) -> bool:
    """Whether a form that can be a verb's is one here."""
    kind = previous.tag if previous else None
    if kind is Tag.SKIPPED and previous is not None and previous.text == "to":
        return True
    if token.endswith("ing"):
        # "a smiling man", "riding waves": before a noun, and not after one, it describes.
        return kind not in BEFORE_NOUN and not (kind in (None, Tag.PREPOSITION) and _names_token(following))
    if token != base and not token.endswith("s"):
        if kind is Tag.NOUN:
            # "a wall painted white", but "the bus parked cars": only a participle that ends its noun's words counts.
            return not _names_token(following)
        return kind in (Tag.AUXILIARY, Tag.PRONOUN, Tag.VERB) or (kind is Tag.RELATIVE)
    if kind is Tag.RELATIVE or (kind is Tag.PRONOUN and following != ""):
        return True
    if kind is not Tag.NOUN or previous is None:
        return kind is Tag.AND and token == "have"
    agrees = is_plural(previous.text) == (token == base)
    opens = following in DETERMINERS or following in PREPOSITIONS or following in NUMBERS or following in ADJECTIVES
    lives = singular(previous.text).split()[-1] in ANIMATE
    return base == "have" or (agrees and (opens or lives or following in PRONOUNS))


def _is_verb(token: str) -> bool:
    return verb_base(token) == token and token not in _CLOSED


def _names_token(token: str) -> bool:
    """Whether a token can be part of what something is called."""
    return bool(token) and token[0].isalnum() and token not in _CLOSED


def _names(tokens: Sequence[str], place: int) -> bool:
    """Whether a thing is named from `place` on."""
    while place < len(tokens) and tokens[place] in DETERMINERS:
        place += 1
    return place < len(tokens) and _names_token(tokens[place])
