"""The 12 classes and the rules that decide them: objects, attributes and relationships, nothing else.

Pairs that only a relationship or an attribute tells apart: office (a laptop on a table) and dining room (a bowl on a
table); classroom (a black board) and meeting room (a white board). A kitchen needs a pot on the stove, a living room
both a sofa and a television, an art studio a painting on an easel; those objects occur singly in other classes, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from training.scenes.scene import Relation, Scene, Thing


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a class needs: objects of these kinds (with this attribute, unless empty) and perhaps one relationship.

    Attributes:
        needs: kind and required attribute ("" for any) of each object.
        relation: name of the relationship that the first object must have to the second; "" for none.
    """

    needs: tuple[tuple[str, str], ...]
    relation: str = ""


RULES: dict[str, Rule] = {
    "art_studio": Rule(needs=(("painting", ""), ("easel", "")), relation="on"),
    "bathroom": Rule(needs=(("bathtub", ""),)),
    "bedroom": Rule(needs=(("bed", ""),)),
    "classroom": Rule(needs=(("board", "black"),)),
    "dining_room": Rule(needs=(("bowl", ""), ("table", "")), relation="on"),
    "kitchen": Rule(needs=(("pot", ""), ("stove", "")), relation="on"),
    "laundry_room": Rule(needs=(("washer", ""),)),
    "living_room": Rule(needs=(("sofa", ""), ("television", ""))),
    "meeting_room": Rule(needs=(("board", "white"),)),
    "music_room": Rule(needs=(("piano", ""),)),
    "nursery": Rule(needs=(("crib", ""),)),
    "office": Rule(needs=(("laptop", ""), ("table", "")), relation="on"),
}

CLASSES = tuple(sorted(RULES))


def label_of(scene: Scene) -> str | None:
    """The class of a scene: the one class whose rule is met; None when no rule is met, or more than one."""
    found = [(name, witness) for name, rule in RULES.items() for witness in witnesses(scene, rule)]
    names = {name for name, _ in found}
    return names.pop() if len(names) == 1 else None


def evidence_of(scene: Scene) -> tuple[int, ...]:
    """Ids of the objects that decide the class, ascending: taking any one of them away flips the label.

    Empty for a scene without a class, or where the rule is met twice (no single object decides then).
    """
    label = label_of(scene)
    if label is None:
        return ()
    met = list(witnesses(scene, RULES[label]))
    return tuple(sorted(thing.id for thing in met[0])) if len(met) == 1 else ()


def witnesses(scene: Scene, rule: Rule) -> Iterator[tuple[Thing, ...]]:
    """Every choice of objects that meets a rule."""
    candidates = [
        [t for t in scene.things if t.kind == kind and (not word or word in t.attributes)] for kind, word in rule.needs
    ]
    for chosen in product(*candidates):
        if not rule.relation:
            yield chosen
            continue
        wanted = Relation(subject=chosen[0].id, name=rule.relation, object=chosen[1].id)
        if wanted in scene.relations:
            yield chosen
