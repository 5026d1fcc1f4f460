"""What is asked of a generator, and where the asking comes from: classes, listed concepts, or what people said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import lcm
from typing import TypeVar

from saaa.annotations.content import split
from saaa.difficulty import Concept

T = TypeVar("T")
TOKEN = "{token}"
_AN = re.compile(r"(?!eu|one\b|uni(?![mn])|us[aeiu]|ute)[aeiou]|hour|honest|heir", re.IGNORECASE)
"""How words begin that take "an"."""
_NO_ARTICLE = re.compile(r"(?:an?|the|some|its|several|many|two|three)\s|.*[^su]s$", re.IGNORECASE)
"""Words with an article or a number of their own, and plurals."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One picture that is wanted."""

    label: str
    """The class that the picture shall show, and be labelled with; as the class folders are named."""
    text: str
    """As a text-to-image model reads it, with the class in words; "{token}" stands for the class's learned token."""
    negative: tuple[str, ...] = ()
    """Concepts that shall not be in the picture."""
    concept: str = ""
    """The concept that the prompt adds to the class; "" for none."""

    @property
    def token(self) -> bool:
        """Whether it uses the class's learned token."""
        return TOKEN in self.text


Prompts = dict[str, tuple[Prompt, ...]]
"""By class; a debug set takes a class's prompts in turn."""


def class_prompts(classes: Sequence[str]) -> Prompts:
    """Ask for the class alone (G-LLM): "a photo of a living room"."""
    return {label: (_prompt(label),) for label in classes}


def concept_prompts(concepts: Mapping[str, Sequence[str]]) -> Prompts:
    """Ask for the class with each of its concepts (G-LLM-prompt): "a kitchen with a stove".

    A class without concepts is asked for alone.
    """
    prompts = {}
    for label, listed in concepts.items():
        words = dict.fromkeys(found for found in map(_plain, listed) if found)
        prompts[label] = tuple(_prompt(label, name, _a(name)) for name in words) or (_prompt(label),)
    return prompts


def human_prompts(concepts: Mapping[str, Sequence[Concept]], classes: Sequence[str]) -> Prompts:
    """Ask for what people said a class should be known by, and break what the model confuses with it (Ours).

    The class is its learned token. A class's confounded concepts are unwanted in its own pictures, and its confounded
    objects are put into the other classes' pictures, so that the correlation is undone from both sides. Prompts with a
    valid concept and prompts with another class's confounded object take turns, and each concept comes as often as the
    others of its sort. An object that is valid for some class is not put into another class's picture: it might make
    it a picture of that class.

    Args:
        concepts: of each class what annotators named, see `saaa.difficulty.concepts`. Undecided ones are not used.
        classes: whose prompts are wanted.
    """
    valid = {label: _phrases(of, "valid") for label, of in concepts.items()}
    confounded = {label: _phrases(of, "confounded") for label, of in concepts.items()}
    objects = {label: _phrases([c for c in of if c.kind == "object"], "confounded") for label, of in concepts.items()}
    decisive = set(chain.from_iterable(valid.values()))
    prompts = {}
    for place, label in enumerate(classes):
        unwanted = confounded.get(label, {})
        foreign: dict[str, str] = {}
        for other in (*classes[place + 1 :], *classes[:place]):  # each class begins with another one's objects
            foreign |= objects.get(other, {})
        usable = [item for item in foreign.items() if item[0] not in decisive and item[0] not in unwanted]
        own = list(valid.get(label, {}).items()) or [("", "")]
        prompts[label] = tuple(_prompt(label, *item, tuple(unwanted)) for item in _in_turn(own, usable))
    return with_token(prompts)


def with_token(prompts: Mapping[str, Sequence[Prompt]]) -> Prompts:
    """Put each class's learned token in the place of its name (G-TG): "a photo of a {token}"."""
    return {
        label: tuple(replace(p, text=p.text.replace(_a(_spoken(label)), f"a {TOKEN}", 1)) for p in of)
        for label, of in prompts.items()
    }


def _prompt(label: str, concept: str = "", phrase: str = "", negative: tuple[str, ...] = ()) -> Prompt:
    name = _a(_spoken(label))
    text = f"{name} with {phrase}" if phrase else f"a photo of {name}"
    return Prompt(label=label, text=text, negative=negative, concept=concept)


def _phrases(concepts: Iterable[Concept], verdict: str) -> dict[str, str]:
    """Of the concepts with this verdict the plain words, and how they stand in a sentence."""
    found = {}
    for concept in concepts:
        parts = split(concept.name)
        if concept.verdict == verdict and parts:
            if concept.kind == "attribute" and len(parts) == 2:
                parts = [f"{parts[1]} {parts[0]}"]  # (board, black)
            # Of a relationship with one end nobody knows which part that is.
            ends = {0, 2} if len(parts) == 3 else {0} if len(parts) == 1 else set()
            phrase = " ".join(_a(part) if place in ends else part for place, part in enumerate(parts))
            found[" ".join(parts)] = phrase
    return found


def _in_turn(first: Sequence[T], second: Sequence[T]) -> list[T]:
    """One of each in turn, until both are round together."""
    if not second:
        return list(first)
    rounds = range(lcm(len(first), len(second)))
    return [item for i in rounds for item in (first[i % len(first)], second[i % len(second)])]


def _spoken(label: str) -> str:
    return _plain(label.replace("_", " "))


def _plain(text: str) -> str:
    """On one line and without braces, which would be taken for a token."""
    return " ".join(re.sub(r"[{}]", " ", text).split())


def _a(words: str) -> str:
    """The words with the article that they need."""
    if _NO_ARTICLE.match(words):
        return words
    return f"{'an' if _AN.match(words) else 'a'} {words}"
