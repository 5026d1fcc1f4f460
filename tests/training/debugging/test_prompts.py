"""Prompts: their words, their order, and what they keep out."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saaa.difficulty import Concept
from training.debugging.prompts import (
    TOKEN,
    Prompt,
    class_prompts,
    concept_prompts,
    human_prompts,
    with_token,
)


def concept(name: str, verdict: str, kind: str = "object") -> Concept:
    return Concept(name, kind, 9, 1.0, 1.0, (0.7, 1.0), verdict)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("living_room", "a photo of a living room"),
        ("art_studio", "a photo of an art studio"),
        ("office", "a photo of an office"),
        ("university", "a photo of a university"),
        ("umbrella shop", "a photo of an umbrella shop"),
        ("hour_glass", "a photo of an hour glass"),
        ("odd{token}one", "a photo of an odd token one"),
    ],
)
def test_a_class_is_spoken_with_its_article(label: str, text: str) -> None:
    (prompt,) = class_prompts([label])[label]
    assert prompt == Prompt(label=label, text=text)
    assert not prompt.token


def test_concepts_join_the_class_each_once_and_plurals_have_no_article() -> None:
    prompts = concept_prompts({"kitchen": ["oven", "pots", " the  sink", "oven", "glass", ""], "office": []})
    assert [p.text for p in prompts["kitchen"]] == [
        "a kitchen with an oven",
        "a kitchen with pots",
        "a kitchen with the sink",
        "a kitchen with a glass",
    ]
    assert [p.concept for p in prompts["kitchen"]] == ["oven", "pots", "the sink", "glass"]
    assert [p.text for p in prompts["office"]] == ["a photo of an office"]


def test_a_token_takes_the_place_of_the_class_and_of_nothing_else() -> None:
    prompts = with_token(concept_prompts({"office": ["office chair"], "art_studio": ["an office"]}))
    assert prompts["office"][0].text == "a {token} with an office chair"
    assert prompts["art_studio"][0].text == "a {token} with an office"
    assert all(p.token for own in prompts.values() for p in own)


def test_people_put_valid_concepts_in_and_break_confounded_ones_from_both_sides() -> None:
    named = {
        "art_studio": [
            concept("(painting, on, easel)", "valid", "relationship"),
            concept("ball", "confounded"),
            concept("lamp", "undecided"),
        ],
        "classroom": [
            concept("(board, black)", "valid", "attribute"),
            concept("globe", "confounded"),
            concept("(rug, red)", "confounded", "attribute"),
        ],
        "den": [],
    }
    prompts = human_prompts(named, ("art_studio", "classroom", "den"))
    assert [(p.text, p.negative) for p in prompts["art_studio"]] == [
        ("a {token} with a painting on an easel", ("ball",)),
        ("a {token} with a globe", ("ball",)),
    ]
    assert [(p.text, p.negative) for p in prompts["classroom"]] == [
        ("a {token} with a black board", ("globe", "red rug")),
        ("a {token} with a ball", ("globe", "red rug")),
    ]
    # Nothing is known of a den but the others' objects; red rugs are no object of their own.
    assert [p.text for p in prompts["den"]] == [
        "a photo of a {token}",
        "a {token} with a ball",
        "a photo of a {token}",
        "a {token} with a globe",
    ]
    assert [p.concept for p in prompts["den"]] == ["", "ball", "", "globe"]


def test_what_shows_a_class_is_never_put_into_another() -> None:
    named = {
        "den": [concept("sofa", "confounded"), concept("cat", "confounded")],
        "attic": [concept("sofa", "valid")],
        "bath": [concept("cat", "confounded")],
    }
    prompts = human_prompts(named, ("den", "attic", "bath"))
    used = {label: {p.concept for p in own} for label, own in prompts.items()}
    assert used == {"den": {""}, "attic": {"sofa", "cat"}, "bath": {""}}


WORDS = st.sampled_from("ball cat globe lamp rug sofa teddy vase".split())
NAMED = st.dictionaries(
    st.sampled_from(["attic", "bath", "den", "office"]),
    st.lists(
        st.builds(concept, WORDS, st.sampled_from(["valid", "confounded", "undecided"])),
        max_size=6,
        unique_by=lambda c: c.name,
    ),
)


@given(NAMED)
def test_a_budget_cut_leaves_a_balanced_mix(named: dict[str, list[Concept]]) -> None:
    classes = ("attic", "bath", "den", "office")
    for label, own in human_prompts(named, classes).items():
        valid = {c.name for c in named.get(label, ()) if c.verdict == "valid"} or {""}
        confounded = {c.name for c in named.get(label, ()) if c.verdict == "confounded"}
        assert own
        for prompt in own:
            assert prompt.label == label
            assert TOKEN in prompt.text
            assert set(prompt.negative) == confounded
            assert prompt.concept not in confounded
        for cut in range(1, 2 * len(own) + 1):
            counts = Counter(own[i % len(own)].concept for i in range(cut))
            first = sum(counts[name] for name in valid)
            assert set(counts) <= valid or abs(2 * first - cut) <= 1
            for names in (valid, set(counts) - valid):
                assert max((counts[n] for n in names), default=0) - min((counts[n] for n in names), default=0) <= 1
