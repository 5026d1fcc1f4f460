"""What people type of a highlighted area: an object, (object, attribute) or (object, relationship, object).

Asked for that form, they write it in any order, with articles, with a preposition in an object's place, without
brackets, with slips of the pen. `read_content` makes the best of it, says what it repaired, and refuses nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

from saaa.role_graph import NodeKind

KINDS = {kind.name.lower(): kind for kind in NodeKind}
MAX_TEXT = 300
"""Characters read of a description; the form asked for needs a few words."""

ARTICLES = frozenset("a an the".split())
PREPOSITIONS = frozenset(
    "about above across against along among around at atop away before behind below beneath beside between by down "
    "during for from in inside into near next of off on onto out outside over past through to toward towards under "
    "underneath up upon with within without".split()
)
_PLACES = frozenset("front back side top bottom middle left right".split())
"""Nouns that make a preposition with others: in front of, on the side of."""
_THINGS = frozenset(
    "awning bedding building bunting carpeting carving ceiling clothing drawing duckling dumpling earring fencing "
    "flatbed flooring frosting icing lettering molding moped netting painting paneling pudding railing roofing sapling "
    "scaffolding seaweed seedling siding sibling string stuffing swing topping wedding".split()
)
"""Things in pictures whose names end as participles do. A word that more often says what somebody does there
("parking", "crossing", "writing") is left out."""
_FUNCTION = ARTICLES | PREPOSITIONS | frozenset("and is are was were be been being it its there this that".split())
_ALIASES = {"obj": "object", "attr": "attribute", "rel": "relationship", "relation": "relationship"}
_SEPARATORS = re.compile(r"[,;|\uff0c\u3001]")
_BRACKETS = re.compile(r"[()\[\]{}<>\"`\uff08\uff09\u201c\u201d]")


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a description names; names are in lower case, without articles."""

    kind: NodeKind | None = None
    """None where neither the annotator nor the form of the text says it."""
    subject: str | None = None
    """The object; of an attribute its owner; of a relationship its first end."""
    predicate: str | None = None
    """The attribute or the relationship."""
    target: str | None = None
    """A relationship's second end."""

    @property
    def objects(self) -> tuple[str, ...]:
        """The objects named, each once."""
        return tuple(dict.fromkeys(name for name in (self.subject, self.target) if name))

    def __str__(self) -> str:
        parts = [part for part in (self.subject, self.predicate, self.target) if part]
        return f"({', '.join(parts)})" if len(parts) > 1 else "".join(parts)


def clean(text: str) -> str:
    """A text on one line, without control characters and lone surrogates."""
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in text)
    return " ".join(unicodedata.normalize("NFC", kept).split())


def read_kind(text: str) -> tuple[NodeKind | None, str | None]:
    """The content type that somebody typed, and what was repaired of it; an empty text is none."""
    word = clean(text).lower().strip(" .")
    if word in KINDS:
        return KINDS[word], None
    if not word:
        return None, "no content type"
    near = [_ALIASES[word]] if word in _ALIASES else get_close_matches(word[:MAX_TEXT], KINDS, n=1, cutoff=0.7)
    if near:
        return KINDS[near[0]], f"content type {word[:40]!r} read as {near[0]!r}"
    return None, f"content type {word[:40]!r} is none of {', '.join(KINDS)}"


def read_content(kind: NodeKind | None, text: str, known: Collection[str] = ()) -> tuple[Content, list[str]]:
    """Read a description.

    Args:
        kind: what the annotator called it; None leaves it to the number of parts.
        text: as typed.
        known: names of objects of this image; they tell which part of a pair is the object.

    Returns:
        The content and what was repaired, in words.
    """
    repaired: list[str] = []
    parts = split(text)
    if kind is None and 1 <= len(parts) <= 3:
        kind = (NodeKind.OBJECT, NodeKind.ATTRIBUTE, NodeKind.RELATIONSHIP)[len(parts) - 1]
        repaired.append(f"taken for {_a(kind)} by its form")
    if not parts or kind is None:
        return Content(kind=kind), [*repaired, "the description names nothing" if not parts else "of unknown form"]
    read = {NodeKind.OBJECT: _object, NodeKind.ATTRIBUTE: _attribute, NodeKind.RELATIONSHIP: _relationship}[kind]
    content = read(parts, known, repaired)
    if not content.objects:
        repaired.append("names no object")
    return content, repaired


def split(text: str) -> list[str]:
    """The parts of a tuple as typed, in lower case; empty ones left out."""
    plain = _BRACKETS.sub(" ", clean(text)[:MAX_TEXT]).lower()
    return [part for part in (" ".join(p.split()).strip(" .'") for p in _SEPARATORS.split(plain)) if part]


def name(text: str) -> str | None:
    """An object's name without articles and leading prepositions; None if nothing else is left."""
    words = text.split()
    while words and words[0] in _FUNCTION:
        words = words[1:]
    return " ".join(words) or None


def _object(parts: list[str], known: Collection[str], repaired: list[str]) -> Content:
    names = [found for found in map(name, parts) if found]
    if len(parts) > 1:
        names.sort(key=lambda n: n not in known)
        repaired.append(f"an object described by {len(parts)} parts; took {(names or ['none'])[0]!r}")
    return Content(kind=NodeKind.OBJECT, subject=names[0] if names else None)


def _attribute(parts: list[str], known: Collection[str], repaired: list[str]) -> Content:
    if len(parts) == 1:
        words = parts[0].split()
        if len(words) > 1:
            repaired.append("one part read as attribute and object")
            return Content(kind=NodeKind.ATTRIBUTE, subject=name(" ".join(words[1:])), predicate=words[0])
        return Content(kind=NodeKind.ATTRIBUTE, predicate=parts[0])
    if len(parts) > 2:
        repaired.append(f"an attribute described by {len(parts)} parts; took the first two")
    first, second = parts[:2]
    if name(second) in known and name(first) not in known:
        repaired.append("the attribute stands before its object")
        first, second = second, first
    return Content(kind=NodeKind.ATTRIBUTE, subject=name(first), predicate=second)


def _relationship(parts: list[str], known: Collection[str], repaired: list[str]) -> Content:
    if len(parts) == 1 and len(words := [w for w in parts[0].split() if w not in ARTICLES]) > 2:
        repaired.append("one part read as object, relationship and object")
        parts = [words[0], " ".join(words[1:-1]), words[-1]]
    subject: str | None = None
    if len(parts) > 1 and not _relates(parts[0], known):
        subject, parts = name(parts[0]), parts[1:]
    elif len(parts) > 1:
        repaired.append(f"begins with {parts[0]!r}, which is no object")
    rest = [word for part in parts[:-1] for word in part.split()]
    last = parts[-1].split()
    if not rest and subject is not None:  # an object and a relationship
        return Content(kind=NodeKind.RELATIONSHIP, subject=subject, predicate=" ".join(last))
    while rest and last and (last[0] in _FUNCTION or (last[0] in _PLACES and last[-1] in PREPOSITIONS)):
        rest, last = [*rest, last[0]], last[1:]  # "walking, on street": what leads the last part relates, too
    if not rest:
        return Content(kind=NodeKind.RELATIONSHIP, predicate=" ".join(last))
    # Words before the last part that neither relate nor stand in a known phrase belong to the object: "on, rainy, day".
    while len(rest) > 1 and subject is None and rest[0] in PREPOSITIONS and last and not _inner(rest[-1]):
        last = [rest.pop(), *last]
    while len(rest) > 1 and last and rest[-1] in ARTICLES:
        rest.pop()
    return Content(
        kind=NodeKind.RELATIONSHIP, subject=subject, predicate=" ".join(rest), target=name(" ".join(last)) or None
    )


def _inner(word: str) -> bool:
    """Whether a word may stand inside a compound preposition."""
    return word in _FUNCTION or word in _PLACES


def _relates(part: str, known: Collection[str]) -> bool:
    """Whether a part that stands in the first object's place is a relationship: it begins with a function word, or is a
    single participle that is nothing's name: neither commonly nor in what people said of the image."""
    words = part.split()
    if part in known or part in _THINGS:
        return False
    return words[0] in _FUNCTION - ARTICLES or (len(words) == 1 and len(part) > 4 and part.endswith(("ing", "ed")))


def _a(kind: NodeKind) -> str:
    return f"a{'n' if kind is not NodeKind.RELATIONSHIP else ''} {kind.name.lower()}"


def rename(content: Content, names: Mapping[str, str]) -> Content:
    """The content with other names for its objects."""
    new = {end: names.get(was, was) for end in ("subject", "target") if (was := getattr(content, end)) is not None}
    return replace(content, **new)


def slips(texts: Iterable[str]) -> dict[str, str]:
    """Words that are a slip of the pen of another: two neighbouring letters swapped, or one doubled or not doubled by
    mistake; and the other is written at least twice as often.

    Other letters than these are another word: "horse" is no misspelt "house", nor "pants" "plants".
    """
    counts = Counter(word for text in texts for word in text.split() if word not in _FUNCTION and len(word) <= 30)
    found: dict[str, str] = {}
    for word, count in counts.items():
        others = [other for other in _near(word) if counts[other] >= 2 * count]
        if len(word) >= 4 and others:
            found[word] = max(others, key=lambda other: (counts[other], other))
    return found


def _near(word: str) -> set[str]:
    places = range(len(word) - 1)
    swapped = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in places}
    single = {word[:i] + word[i + 1 :] for i in places if word[i] == word[i + 1]}
    double = {word[: i + 1] + word[i:] for i in range(1, len(word) - 1)}
    return (swapped | single | double) - {word}


def plurals(names: Collection[str]) -> dict[str, str]:
    """Names that are the plural of another name in the collection; the other one."""
    found: dict[str, str] = {}
    for plural in names:
        for ending, singular in (("ies", "y"), ("es", ""), ("s", "")):
            if plural.endswith(ending) and (base := plural.removesuffix(ending) + singular) != plural and base in names:
                found[plural] = base
    return found
