"""From words to a picture: "a red sofa next to a lamp in a living room".

The world's own words are understood (classes, objects, attributes, relationships, a few synonyms); all captions that
the world writes can be read back. What is not understood is reported, never guessed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random

import numpy as np

from saaa.errors import OptionInvalid
from training.scenes.captions import PHRASES
from training.scenes.classes import CLASSES, RULES, label_of
from training.scenes.kinds import KINDS
from training.scenes.renderer import render
from training.scenes.sampler import NO_BIAS, Bias, Wish, add_distractors, biased_room, is_clear, place_wishes
from training.scenes.scene import Relation, Scene, relations_of
from training.scenes.style import Style

log = logging.getLogger(__name__)

MAX_OBJECTS = 6
ATTEMPTS = 300
SYNONYMS = {
    "couch": "sofa", "desk": "table", "tv": "television", "picture": "painting", "carpet": "rug", "tub": "bathtub",
    "computer": "laptop", "cot": "crib", "bear": "teddy", "flower": "vase", "cupboard": "cabinet", "kitty": "cat",
    "fruit": "bowl", "flowers": "vase", "grey": "gray", "refrigerator": "fridge", "oven": "stove", "wood": "wooden",
    "cushion": "pillow", "blackboard": "black board", "whiteboard": "white board", "armchair": "chair",
    "bookcase": "bookshelf", "studio": "art studio", "lounge": "living room", "beneath": "under", "gold": "golden",
    "left": "left of", "right": "right of", "underneath": "under", "photo": "", "image": "", "photograph": "",
}  # fmt: skip
SILENT = frozenset(
    ("a", "an", "the", "of", "in", "is", "are", "and", "with", "there", "we", "see", "has", "room", "it", "to", "at")
) | {"scene", "this", "some", "showing", "that", "which", "stands"}
RELATIONS = {
    **{phrase: name for name, phrases in PHRASES.items() for phrase in phrases},
    "by": "next to",
    "over": "above",
    "hanging on": "on",
    "sitting on": "on",
    "lying on": "on",
    "hanging over": "above",
    "left of": "left of",
    "right of": "right of",
    "in back of": "behind",
}
WORDS = frozenset(word for kind in KINDS.values() for word in (*kind.finishes, *kind.variants)) | {"tall", "small"}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What was understood of a text.

    Attributes:
        label: the class; None if none is named.
        wishes: the objects, in the order of the text.
        links: (subject index, relationship, object index) among the objects; support is in `Wish.on`.
        unknown: the words that mean nothing here, in order.
    """

    label: str | None
    wishes: tuple[Wish, ...]
    links: tuple[tuple[int, str, int], ...]
    unknown: tuple[str, ...]


def parse_prompt(text: str) -> Prompt:
    """Reads a prompt.

    Raises:
        OptionInvalid: nothing in it is understood, or it names too many objects.
    """
    label, tokens = _tokens(text)
    wishes: list[Wish] = []
    links: list[tuple[int, str, int]] = []
    unknown: list[str] = []
    words: list[str] = []
    relation: str | None = None
    holder: int | None = None
    previous = 0
    again = False
    for token in tokens:
        if token in RELATIONS:
            relation = RELATIONS[token]
        elif token == "it" and relation and holder is not None and len(wishes) - 1 != holder:
            links.append((len(wishes) - 1, relation, holder))
            relation, previous = None, holder
        elif token in WORDS:
            words.append(token)
        elif _noun(token) is not None:
            kind = _noun(token) or ""
            known = [k for k, wish in enumerate(wishes) if wish.kind == kind] if again else []
            if known:
                index = known[-1]
            else:
                given = tuple(word for word in words if word in _words_of(kind))
                unknown.extend(word for word in words if word not in given)
                wishes.append(Wish(kind=kind, attributes=given))
                index = len(wishes) - 1
            if relation and (known or index > 0):
                links.append((previous, relation, index))
            relation, words, again, previous = None, [], False, index
        elif token == "and":
            relation = None
        elif token == "with":
            holder = len(wishes) - 1 if wishes else None
            relation = None
        elif token == "the":
            again = True
        elif token in ("a", "an"):
            again = False
        elif token not in SILENT:
            unknown.append(token)
    unknown.extend(words)
    if label is None and not wishes:
        raise OptionInvalid(
            f"nothing in {text!r} is known here; name a class ({', '.join(CLASSES)}) or objects ({', '.join(KINDS)})",
            field="prompt",
        )
    if len(wishes) > MAX_OBJECTS:
        raise OptionInvalid(f"the prompt names {len(wishes)} objects; name at most {MAX_OBJECTS}", field="prompt")
    kept = []
    for subject, name, other in dict.fromkeys(links):
        if name == "on" and wishes[subject].kind in KINDS[wishes[other].kind].holds:
            wishes[subject] = replace(wishes[subject], on=other)
        elif subject != other:
            kept.append((subject, name, other))
    return Prompt(
        label=label, wishes=tuple(wishes), links=tuple(kept), unknown=tuple(sorted(unknown, key=tokens.index))
    )


def render_prompt(
    prompt: str | Prompt,
    seed: int = 0,
    *,
    size: int = 160,
    style: Style | None = None,
    bias: Bias = NO_BIAS,
    without: Sequence[Prompt] = (),
) -> tuple[np.ndarray, Scene]:
    """Draws what a text asks for, in a room with other objects, as varied as any scene of the world.

    Args:
        prompt: such as "a red sofa next to a lamp in a living room", or one already parsed. Words that mean nothing
            here are logged as a warning; `parse_prompt(...).unknown` lists them.
        seed: same prompt, seed and options, same bytes.
        size: width and height in pixels.
        style: where the other objects and the wall come from; default: the world's own chance.
        bias: walls, wall patterns and kinds of objects to keep out, where the prompt does not ask for them.
        without: what else the picture must not show; see `shows`.

    Returns:
        The picture, uint8 (S, S, 3), and its scene: `label_of(scene)` is the class named, if one was.

    Raises:
        OptionInvalid: nothing is understood, or what was asked for cannot be (a classroom with a white board, a sofa
            on a lamp, more than fits into a room).
    """
    if isinstance(prompt, str):
        prompt = parse_prompt(prompt)
    if prompt.unknown:
        log.warning("the prompt's words %s mean nothing here", ", ".join(prompt.unknown))
    asked = _with_class(prompt)
    clashes = 0
    for attempt in range(ATTEMPTS):
        rng = Random(f"{seed}/{prompt.label}/{asked}/{prompt.links}/{attempt}")
        room = biased_room(rng, bias if style is None else style.choose_wall(bias, rng))
        things = place_wishes(_supported(asked, bias.avoid_things, rng), room, rng, prompt.links)
        if things is None:
            continue
        scene = Scene(room=room, things=things, relations=relations_of(things))
        label = label_of(scene)
        if prompt.label is not None and label != prompt.label:
            clashes += 1
            continue
        if style is None:
            scene = add_distractors(things, room, rng, label=label, avoid=bias.avoid_things)
        else:
            scene = style.furnish(scene, rng, avoid=bias.avoid_things)
        if any(shows(scene, unwanted) for unwanted in without):
            continue
        rendered = render(scene, size)
        if is_clear(scene, rendered):
            return rendered.image, scene
    if clashes:
        raise OptionInvalid(
            f"the prompt's objects decide another class than {prompt.label}, or two at once; change the class or them",
            field="prompt",
        )
    raise OptionInvalid(
        "the prompt's objects and relationships do not fit into one room; ask for fewer or other ones",
        field="prompt",
    )


def shows(scene: Scene, prompt: Prompt) -> bool:
    """Whether a scene holds all the objects of a prompt, with their words, in their relationships."""
    candidates = [
        [t for t in scene.things if t.kind == wish.kind and set(wish.attributes) <= set(t.attributes)]
        for wish in prompt.wishes
    ]
    on = [(k, "on", wish.on) for k, wish in enumerate(prompt.wishes) if wish.on is not None]
    for chosen in product(*candidates):
        links = [(chosen[a].id, name, chosen[b].id) for a, name, b in (*on, *prompt.links)]
        if all(Relation(subject=a, name=name, object=b) in scene.relations for a, name, b in links):
            return True
    return False


def _tokens(text: str) -> tuple[str | None, list[str]]:
    """The class named, and the rest as words and whole relationship phrases."""
    plain = " ".join(re.findall(r"[a-z]+", text.lower().replace("_", " ")))
    plain = re.sub(r"\b(a|the) (picture|photo|image) of\b", "", plain)
    plain = plain.replace("art studio", "studio")  # of which the full name is the synonym
    words = [SYNONYMS.get(word, word) if f"{word} of" not in RELATIONS else word for word in plain.split()]
    words = [word for k, word in enumerate(words) if word and words[k - 1 : k] != [word]]  # a teddy bear is one teddy
    plain = f" {' '.join(words)} "
    label = None
    for name in CLASSES:
        spoken = f" {name.replace('_', ' ')} "
        if spoken in plain:
            label = label or name
            plain = plain.replace(spoken, " ")
    for phrase in sorted(RELATIONS, key=len, reverse=True):
        plain = plain.replace(f" {phrase} ", f" {phrase.replace(' ', '_')} ")
    return label, [token.replace("_", " ") for token in plain.split()]


def _noun(token: str) -> str | None:
    """The object kind a word names, plural forms included."""
    for form in (token, token.removesuffix("s"), token.removesuffix("es")):
        form = SYNONYMS.get(form, form)
        if form in KINDS:
            return form
    return None


def _words_of(kind: str) -> tuple[str, ...]:
    size = ("tall", "small") if kind == "lamp" else ()
    return (*KINDS[kind].finishes, *KINDS[kind].variants, *size)


def _with_class(prompt: Prompt) -> list[Wish]:
    """The prompt's objects and those that its class needs besides."""
    wishes = list(prompt.wishes)
    if prompt.label is None:
        return wishes
    rule = RULES[prompt.label]
    places = []
    for kind, word in rule.needs:
        index = next((k for k, wish in enumerate(wishes) if wish.kind == kind), None)
        if index is None:
            wishes.append(Wish(kind=kind, attributes=(word,) if word else ()))
            index = len(wishes) - 1
        elif word and word not in wishes[index].attributes:
            if set(wishes[index].attributes) & set(KINDS[kind].finishes):
                raise OptionInvalid(
                    f"a {prompt.label.replace('_', ' ')} has a {word} {kind}; change the class or the {kind}",
                    field="prompt",
                )
            wishes[index] = replace(wishes[index], attributes=(word, *wishes[index].attributes))
        places.append(index)
    if rule.relation == "on" and wishes[places[0]].on is None:
        wishes[places[0]] = replace(wishes[places[0]], on=places[1])
    return wishes


def _supported(wishes: Sequence[Wish], avoid: frozenset[str], rng: Random) -> list[Wish]:
    """The wishes, and something to stand on for each that stands on other things only and was not told on which."""
    found = list(wishes)
    for k, wish in enumerate(wishes):
        if wish.on is not None or KINDS[wish.kind].places != ("top",):
            continue
        new = [kind.name for kind in KINDS.values() if wish.kind in kind.holds and kind.weight]
        new = [name for name in new if name not in avoid and name not in {other.kind for other in found}]
        there = [j for j, other in enumerate(found) if wish.kind in KINDS[other.kind].holds]
        if not there and not new:
            continue
        choice = rng.randrange(len(there) + len(new))
        if choice < len(there):
            found[k] = replace(wish, on=there[choice])
        else:
            found[k] = replace(wish, on=len(found))
            found.append(Wish(kind=new[choice - len(there)]))
    return found
