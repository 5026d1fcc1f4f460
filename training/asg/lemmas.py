"""Base forms of nouns and verbs, and how a caption becomes words."""

from __future__ import annotations

import re
from functools import lru_cache

from training.asg.lexicon import ING_NOUNS, IRREGULAR, PLURAL_IRREGULAR, UNINFLECTED, VERBS

_TOKEN = re.compile(r"[a-z0-9]+(?:[-'][a-z0-9]+)*|'s\b|[.,;:!?]")
_VOWELS = "aeiou"


def tokens(caption: str) -> tuple[str, ...]:
    """Words in lower case, punctuation apart; a possessive's "'s" is a word."""
    found: list[str] = []
    for token in _TOKEN.findall(caption.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")):
        if token.endswith("'s") and len(token) > 2:
            found += [token[:-2], "'s"]
        else:
            found.append(token)
    return tuple(found)


def words(caption: str) -> str:
    """A caption as the published files write it: lower case, without punctuation, one space between words."""
    return " ".join(token for token in tokens(caption) if token[-1].isalnum())


@lru_cache(maxsize=2**14)
def singular(noun: str) -> str:
    """The singular of a noun; of a compound, of its last word."""
    if " " in noun:
        first, last = noun.rsplit(" ", 1)
        return f"{first} {singular(last)}"
    if noun in PLURAL_IRREGULAR:
        return PLURAL_IRREGULAR[noun]
    if noun in UNINFLECTED or len(noun) < 4 or not noun.endswith("s") or noun.endswith(("ss", "us", "is")):
        return noun
    if noun.endswith("ies") and len(noun) > 4:
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "sses", "xes", "toes")):
        return noun[:-2]
    return noun[:-1]


def is_plural(noun: str) -> bool:
    """Whether a noun names several things."""
    return singular(noun) != noun or noun.endswith("people")


@lru_cache(maxsize=2**14)
def verb_base(form: str) -> str | None:
    """The base form of a known verb, or of anything in -ing; None for other words."""
    if form in IRREGULAR:
        return IRREGULAR[form]
    if form in ING_NOUNS:
        return None
    for ending in ("", "s", "es", "ed", "d", "ing"):
        stem = form.removesuffix(ending) if form.endswith(ending) else ""
        if stem and (ending or stem in VERBS):
            for base in _bases(stem, ending):
                if base in VERBS:
                    return base
    if form.endswith("ing") and len(form) > 5 and any(c in _VOWELS for c in form[:-3]):
        return _plain_stem(form[:-3])
    return None


def _bases(stem: str, ending: str) -> list[str]:
    """What a verb's base form may be, given its form without the ending."""
    bases = [stem]
    if ending in ("ed", "ing"):
        bases.append(f"{stem}e")
        if len(stem) > 2 and stem[-1] == stem[-2]:
            bases.append(stem[:-1])
    if stem.endswith("i"):
        bases.append(f"{stem[:-1]}y")
    return bases


def _plain_stem(stem: str) -> str:
    """The base form of an unknown verb whose form in -ing has this stem."""
    if len(stem) > 2 and stem[-1] == stem[-2] and stem[-1] not in "lsz":
        return stem[:-1]
    # "mak-ing", "us-ing": one vowel and one consonant at the end want the e back, "eat-ing" does not.
    ends_open = len(stem) > 2 and stem[-1] in "cgkvzu" and stem[-2] in _VOWELS and stem[-3] not in _VOWELS
    return f"{stem}e" if ends_open else stem
