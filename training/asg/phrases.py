"""From a caption to what it mentions: things, what is said of each, and how they relate.

A reader of caption English by rules, without a model: words are tagged by small word lists (`training.asg.lexicon`),
things are runs of nouns with what stands before them, and the words between two things relate them. What it is worth is
measured by `training.asg.factual`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.asg.lemmas import is_plural, singular, tokens
from training.asg.lexicon import ADJECTIVES, ANIMATE, CONTAINERS, NUMBERS
from training.asg.tagging import Tag, Word, tag

TURNED = frozenset("surround pull follow eat lead drive ride hold carry support push hit wash chase feed".split())
"""Verbs whose passive with "by" has an actor: "pulled by horses"; "parked by a house" is a place."""


@dataclass
class Mention:
    """A thing in the order of the caption."""

    name: str
    """The caption's nouns."""
    attributes: list[str] = field(default_factory=list)
    """The caption's words, numbers too."""
    definite: bool = False
    """It has "the" before it."""

    @property
    def number(self) -> int | None:
        """How many there are, if the caption says so."""
        said = [NUMBERS.get(a, a) for a in self.attributes]
        return next((int(n) for n in said if n.isdigit()), None)

    @property
    def plural(self) -> bool:
        """Whether the caption speaks of several."""
        return is_plural(self.name)


@dataclass(frozen=True)
class Link:
    """How one mention relates to another; places in `Phrase.mentions`."""

    subject: int
    object: int
    name: str
    """The caption's words, such as "sitting on"."""
    base: str
    """The same with the verb in its base form: "sit on"."""


@dataclass
class Phrase:
    """What a caption mentions."""

    mentions: list[Mention] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)


def parse(caption: str) -> Phrase:
    """Read one caption; a caption that mentions nothing gives an empty `Phrase`."""
    return _Reader(tag(tokens(caption))).read()


@dataclass
class _Relation:
    """A relation that still waits for its object."""

    subjects: list[int]
    words: list[str]
    bases: list[str]
    verb: bool = False
    turned: bool = False
    """The caption names the object first."""

    def then(self, word: Word, *, turned: bool = False) -> _Relation:
        """With a preposition after the verb."""
        words, bases = [*self.words, word.text], [*self.bases, *([] if turned else [word.text])]
        return _Relation(self.subjects, words, bases, turned=turned)


class _Reader:
    """Goes once through the words; `subjects` are what the clause is about, `last` what was named last."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = words
        self.place = 0
        self.phrase = Phrase()
        self.subjects: list[int] = []
        self.last: list[int] = []
        self.open: _Relation | None = None
        self.done: _Relation | None = None
        """The relation whose object was named last; a list goes on with it."""
        self.owner: int | None = None
        """Whose thing comes next: "the man 's hand"."""
        self.joins = False
        """A comma or "and" came just before."""
        self.after_auxiliary = False
        self.relative = False

    def read(self) -> Phrase:
        while self.place < len(self.words):
            word = self.words[self.place]
            if word.tag in (Tag.DETERMINER, Tag.NUMBER, Tag.ADJECTIVE, Tag.NOUN):
                self._thing()
                continue
            self.place += 1
            match word.tag:
                case Tag.PREPOSITION:
                    self._preposition(word)
                case Tag.VERB:
                    self._verb(word)
                case Tag.AUXILIARY:
                    self._close()
                    self.after_auxiliary = True
                case Tag.POSSESSIVE:
                    self._possessive()
                case Tag.RELATIVE:
                    self.relative = True
                case Tag.AND | Tag.COMMA:
                    self._close()
                    self.joins = True
                case Tag.BREAK:
                    self._close()
                    self.done, self.joins, self.after_auxiliary = None, False, False
                case Tag.PRONOUN:
                    self._pronoun()
        self._close()
        return self.phrase

    def _thing(self) -> None:
        """Read a run of words that name one thing, or describe what was named before."""
        begin = self.place
        attributes: list[str] = []
        nouns: list[str] = []
        definite = False
        while self.place < len(self.words):
            word = self.words[self.place]
            if word.tag is Tag.NOUN:
                nouns.append(word.text)
            elif nouns or not self._describes(self.place):
                break
            elif word.tag in (Tag.ADJECTIVE, Tag.NUMBER):
                attributes.append(word.text)
            elif word.tag is Tag.DETERMINER:
                definite = word.text == "the"
            self.place += 1
        if not nouns and attributes and not self.after_auxiliary and self._noun_like(begin):
            nouns.append(attributes.pop())
        if not nouns:
            if self.after_auxiliary or (self.joins and begin > 1):
                self._describe(self.subjects, attributes)
            elif self.open is None:
                self._describe(self.last, attributes)  # "a wall painted white"
            elif self.open.verb:
                self._describe(self.open.subjects, attributes)
                self.open = None
            return
        self.phrase.mentions.append(Mention(" ".join(nouns), list(dict.fromkeys(attributes)), definite))
        self._named(len(self.phrase.mentions) - 1)

    def _describes(self, place: int) -> bool:
        """Whether the word at `place` is before a noun: one that describes, or what joins two of them."""
        kind = self.words[place].tag
        if kind in (Tag.AND, Tag.COMMA):
            around = [self.words[p].tag if 0 <= p < len(self.words) else None for p in (place - 1, place + 1)]
            return around == [Tag.ADJECTIVE, Tag.ADJECTIVE]
        return kind in (Tag.DETERMINER, Tag.NUMBER, Tag.ADJECTIVE)

    def _noun_like(self, begin: int) -> bool:
        """Whether describing words alone name a thing here: at first, after an article or what wants an object."""
        if self.words[self.place - 1].text.endswith(("ed", "ing")):
            return False
        before = self.words[begin - 1].tag if begin else None
        return self.words[begin].tag is Tag.DETERMINER or before in (None, Tag.PREPOSITION, Tag.POSSESSIVE)

    def _describe(self, things: Sequence[int], attributes: Sequence[str]) -> None:
        for thing in things:
            known = self.phrase.mentions[thing].attributes
            known += [a for a in attributes if a not in known]
        self.after_auxiliary = False

    def _possessive(self) -> None:
        """What was said of the owner is meant of the thing that follows."""
        if not self.last:
            return
        self.owner = self.last.pop()
        if self.done is not None:
            links = self.phrase.links
            self.phrase.links = [link for link in links if self.owner not in (link.object, link.subject)]
            self.open = self.done
        else:
            self.subjects = [s for s in self.subjects if s != self.owner]
            self.joins = bool(self.subjects)

    def _named(self, thing: int) -> None:
        """A thing was named: it ends an open relation, goes on with a list, or is a new subject."""
        if self.owner is not None:
            self.phrase.links.append(Link(self.owner, thing, "'s", "have"))
            self.owner = None
        if self.open is not None:
            self._link(self.open, thing)
            contained = self.open.words == ["of"] and not self.open.turned
            self.last = self.open.subjects if contained else [thing]  # "a plate of food on a table"
            self.done, self.open = self.open, None
        elif self.joins and self.last and not self._begins_clause(thing):
            if self.done is not None:
                self._link(self.done, thing)
            else:
                self.subjects = [*self.subjects, thing]
            self.last = [*self.last, thing]
        else:
            self.subjects, self.last, self.done = [thing], [thing], None
        self.joins = self.after_auxiliary = self.relative = False

    def _begins_clause(self, thing: int) -> bool:
        """After "and": whether something new is said of the thing, as in "a man holding a bat and a boy watching"."""
        if self.done is None:
            return False
        following = self.words[self.place].tag if self.place < len(self.words) else None
        return following in (Tag.VERB, Tag.AUXILIARY) and (self._animate(thing) or following is Tag.AUXILIARY)

    def _animate(self, thing: int) -> bool:
        return self._head(thing) in ANIMATE

    def _head(self, thing: int) -> str:
        """The noun of a thing's name, singular."""
        return singular(self.phrase.mentions[thing].name).split()[-1]

    def _link(self, relation: _Relation, thing: int) -> None:
        for subject in relation.subjects:
            if subject != thing:
                ends = (thing, subject) if relation.turned else (subject, thing)
                self.phrase.links.append(Link(*ends, " ".join(relation.words), " ".join(relation.bases)))

    def _preposition(self, word: Word) -> None:
        if self.open is not None:
            turned = word.text == "by" and self.open.verb and self.open.bases[-1] in TURNED
            if turned and self.open.words[-1].endswith("ing"):
                turned = False
            self.open = self.open.then(word, turned=turned)
            self.open.verb = self.open.verb and not turned
        elif self.after_auxiliary and self.subjects:
            self.open = _Relation(self.subjects, [word.text], [word.text])
        elif self.last:
            subjects = self.last if not self.joins else self.subjects
            if word.text == "of":
                holds = all(self._head(s) in CONTAINERS for s in subjects)
                self.open = _Relation(subjects, ["of"], ["have"], turned=not holds)
            else:
                self.open = _Relation(subjects, [word.text], [word.text])
        self.joins = self.after_auxiliary = False

    def _verb(self, word: Word) -> None:
        if self.open is not None and self.open.verb:
            subjects = self.open.subjects  # "trying to catch"
        elif self.joins and self.done is not None:
            subjects = self.done.subjects  # "holding a bat and wearing a hat"
            if self.done.turned:
                subjects = self.last
        else:
            subjects = self._actor(word)
        self.joins = self.after_auxiliary = self.relative = False
        if subjects:
            self.open = _Relation(subjects, [word.text], [word.base], verb=True)

    def _actor(self, word: Word) -> list[int]:
        """Of what a verb is said: what a relative clause follows, for actions the nearest living thing, else what is
        near."""
        if self.relative or not self.last:
            return self.last
        if self.after_auxiliary:
            return self.subjects
        if word.text.endswith("ing") or word.text.endswith("s"):
            if self._animate(self.last[-1]) or not any(self._animate(s) for s in self.subjects):
                return self.last
            return self.subjects
        return self.last

    def _pronoun(self) -> None:
        if self.open is None:
            return
        others = [m for m in range(len(self.phrase.mentions)) if m not in self.open.subjects]
        if others:
            # "a table with a cat on it": what the caption is about comes first.
            self._link(self.open, others[0])
        self.open = None

    def _close(self) -> None:
        """End a relation that got no object: a verb alone says what its subject does."""
        if self.open is not None and self.open.verb and len(self.open.words) == 1:
            word = self.open.words[0]
            if word.endswith("ing") or word in ADJECTIVES:
                self._describe(self.open.subjects, [word])
            self.done = _Relation(self.open.subjects, [], [])
        self.open = None
